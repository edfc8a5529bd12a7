"""The step in which a model writes text that the user will read, and the room it has for that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rag.core.errors import InputError, ModelError
from rag.core.protocols import LanguageModel
from rag.core.trace import TextDelta, TokensWritten, count, emit, listening, listening_to_tokens
from rag.core.types import Generation, Prompt, Sampling, Token

if TYPE_CHECKING:
    from generators.models.decoding import Writing


async def write(model: LanguageModel, prompt: Prompt, sampling: Sampling) -> Generation:
    """Let ``model`` continue ``prompt``; each piece goes out as a `TextDelta` when someone listens.

    Without a listener the call is a plain `agenerate`, which models batch across questions. Log-probabilities, if ``sampling`` asks for
    them, are counted (`count_confidence`). A listener who wants them also gets `TokensWritten`, once the text is whole; for that a model
    that surely has them is asked for them. Raises `ModelError` if a stream breaks off.
    """
    if not listening():
        generation = await model.agenerate(prompt, sampling)
    else:
        generation = await _streamed(model, prompt, _telling(model, sampling))
        if generation.tokens and listening_to_tokens():
            emit(TokensWritten.of(generation.tokens))
    if sampling.logprobs is not None:
        count_confidence(generation.tokens)
    return generation


async def write_in_a_thread(
    answer: Callable[[Writing], Generation], ids: Sequence[int], sampling: Sampling, adapter: str | None = None
) -> Generation:
    """Let ``answer``, which blocks, continue the prompt ``ids``, and count the call. Pieces go out as `write`'s do.

    Cancelled, it returns at once, and the thread, which cannot be stopped, ends at its next token.
    """
    from generators.models.decoding import Writing

    row = Writing(ids, sampling, _told_from_a_thread() if listening() else None, adapter)
    try:
        generation = await asyncio.to_thread(answer, row)
    finally:
        row.cancelled = True
    count(calls=1, prompt_tokens=generation.prompt_tokens, generated_tokens=generation.generated_tokens)
    return generation


def _told_from_a_thread() -> Callable[[str], Any]:
    """Tells pieces of text to this run's listener from any thread, in their order."""
    loop = asyncio.get_running_loop()
    return lambda piece: loop.call_soon_threadsafe(emit, TextDelta(piece))  # the thread has a copy of this run's context


def _telling(model: LanguageModel, sampling: Sampling) -> Sampling:
    """``sampling`` with log-probabilities if someone listens to them. A model without token ids speaks a format in which the server may
    have none, which it would tell only after it has written: no answer is risked for a shade."""
    if sampling.logprobs is None and listening_to_tokens() and {"logprobs", "token_ids"} <= model.capabilities:
        return replace(sampling, logprobs=0)
    return sampling


def count_confidence(tokens: Sequence[Token]) -> None:
    """Count how sure the model was of tokens that stay in the answer: "logprob", their sum, and "logprob_tokens", their number."""
    if tokens:
        count(logprob=sum(token.logprob for token in tokens), logprob_tokens=len(tokens))


async def _streamed(model: LanguageModel, prompt: Prompt, sampling: Sampling) -> Generation:
    pieces = model.astream(prompt, sampling)
    try:
        async for piece in pieces:
            if isinstance(piece, Generation):
                return piece
            emit(TextDelta(piece))
    finally:
        close = getattr(pieces, "aclose", None)  # a cancelled run must free the model's slot now, not when memory is next swept
        if close is not None:
            await close()
    raise ModelError(f"{model.name}: the stream ended without its generation; the connection may have been cut")


async def most_that_fit(model: LanguageModel, prompt_with: Callable[[int], Prompt], most: int, max_tokens: int) -> int:
    """The largest n in 0..``most`` such that ``prompt_with(n)`` leaves ``model`` room to write ``max_tokens``.

    The prompt must grow with n. It is measured once if all fits, and about log2(``most``) times more if not. Raises `InputError` if not
    even ``prompt_with(0)`` fits: then it is the question that is too long.
    """
    fits, too_many, trial, taken, room = -1, most + 1, most, 0, 0
    while too_many - fits > 1:
        taken = await model.acount(prompt_with(trial))
        # The window comes after the count: asked first, a model might block the event loop to load or to connect.
        room = model.window - max_tokens
        if taken <= room:
            fits = trial
        else:
            too_many = trial
        trial = (fits + too_many) // 2
    if fits < 0:
        raise InputError(
            f"the question is too long: its prompt takes {taken} tokens, and {model.name} has room for {max(room, 0)}"
            f" (a window of {model.window} less max_tokens={max_tokens}); shorten it or lower max_tokens"
        )
    return fits


def remarks(generation: Generation, max_tokens: int) -> list[str]:
    """What the reader of an answer should know about how it was written: that it was cut off, or that it is empty."""
    if not generation.text.strip():
        return ["the model wrote no text"]
    if generation.finish == "length":
        return [f"the answer was cut off at max_tokens={max_tokens}"]
    return []
