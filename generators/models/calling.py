"""The span that a call of a model has in the trace, whichever model it is: what was asked for, the call's own counters, how it ended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, Literal

from rag.core.trace import Span, current_span, measured, span
from rag.core.types import Generation, Sampling


async def called(
    kind: Literal["chat", "score"], provider: str, model: str, call: Coroutine[Any, Any, Generation], sampling: Sampling | None = None
) -> Generation:
    """Await ``call`` within a span "``kind`` ``model``". ``provider`` is who runs the model, as OpenTelemetry's conventions name it."""
    with span(f"{kind} {model}") as here:
        here.inputs = _asked(provider, sampling)
        generation = await call
        here.output = generation.finish
        return generation


async def streamed(
    provider: str, model: str, pieces: AsyncGenerator[str | Generation, None], sampling: Sampling
) -> AsyncGenerator[str | Generation, None]:
    """The ``pieces`` of a call, whose span "chat ``model``" lasts until the last one. A caller that leaves earlier has "cancelled" it."""
    last: Generation | None = None
    with measured(f"chat {model}") as here:
        here.inputs = _asked(provider, sampling)
        async with aclosing(_counting(here, pieces)) as counted:
            async for piece in counted:
                if isinstance(piece, Generation):
                    last, here.output = piece, piece.finish
                    break
                yield piece
    if last is not None:
        yield last


async def _counting(here: Span, pieces: AsyncGenerator[str | Generation, None]) -> AsyncGenerator[str | Generation, None]:
    """``pieces``, each made while ``here`` is the current span; what their reader does between two of them is not counted there."""
    try:
        while True:
            token = current_span.set(here)
            try:
                piece = await anext(pieces, None)
            finally:
                current_span.reset(token)
            if piece is None:
                return
            yield piece
    finally:
        token = current_span.set(here)
        try:
            await pieces.aclose()
        finally:
            current_span.reset(token)


def _asked(provider: str, sampling: Sampling | None) -> dict[str, str]:
    if sampling is None:
        return {"provider": provider}
    asked = {"provider": provider, "max_tokens": str(sampling.max_tokens), "temperature": str(sampling.temperature)}
    unusual = {"top_p": 1.0, "seed": None, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    return asked | {name: str(value) for name, usual in unusual.items() if (value := getattr(sampling, name)) != usual}
