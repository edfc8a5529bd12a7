"""One chat completion, whole or as a stream of chunks, in OpenAI's format. graft's own part stands under the key ``graft``."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rag.core.engine import Run
from rag.core.trace import Span, TextDelta
from rag.core.types import Answer
from rag.serve.describe import as_answer, describe_answer, describe_detail, describe_event
from rag.serve.errors import to_request_error
from rag.serve.waiting import GivenUp, Limited


@dataclass(frozen=True, slots=True)
class Completion:
    """What all chunks of one answer share. ``events``: the stream also tells of nodes, probabilities and judgements."""

    model: str
    remarks: list[str]
    events: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, run: Run) -> dict[str, Any]:
        """The answer in one piece. Raises the run's error."""
        answer = as_answer(run.value)
        message = {"role": "assistant", "content": answer.text, "refusal": None, "graft": self._graft(answer)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(run.trace)}

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def step(self, event: object) -> dict[str, Any] | None:
        """A chunk without text that tells of a step (with ``events``, of every one); None for what a client need not hear."""
        described = describe_event(event) or (describe_detail(event) if self.events else None)
        return described and {**self.chunk({}), "graft": {"event": described}}

    def last(self, answer: Answer, revised: bool) -> dict[str, Any]:
        """The piece that ends the text. ``revised``: the final text is not what was streamed, so it is given in full."""
        graft = self._graft(answer)
        if revised:
            graft["text"] = answer.text
            graft["notes"].append("the text was revised after it was streamed; the final text is in graft.text")
        return {**self.chunk({}, answer.finish), "graft": graft}

    def usage_chunk(self, trace: Span) -> dict[str, Any]:
        """The piece that `stream_options.include_usage` asks for."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(trace)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _graft(self, answer: Answer) -> dict[str, Any]:
        described = describe_answer(answer)
        return {**described, "notes": [*described["notes"], *self.remarks]}


def usage(trace: Span) -> dict[str, int]:
    """Tokens of every model call of the run."""
    prompt, generated = int(trace.total("prompt_tokens")), int(trace.total("generated_tokens"))
    return {"prompt_tokens": prompt, "completion_tokens": generated, "total_tokens": prompt + generated}


class Chunks(Protocol):
    """Writes an answer in pieces, in one format or another."""

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        ...

    def step(self, event: object) -> dict[str, Any] | None:
        """A piece without text for a step of the method; None for what a client need not hear."""
        ...

    def last(self, answer: Answer, revised: bool) -> dict[str, Any]:
        """The piece that ends the text."""
        ...

    def usage_chunk(self, trace: Span) -> dict[str, Any]:
        """The piece with the token counts."""
        ...


async def stream(completion: Chunks, first: Sequence[Any], events: Limited, include_usage: bool) -> AsyncIterator[str]:
    """The chunks as JSON texts, ``[DONE]`` last. An error, and the end of the time, become an event of their own."""
    try:
        yield _dump(completion.chunk({"role": "assistant", "content": ""}))
        streamed: list[str] = []
        ahead = iter(first)
        event = next(ahead)
        while not isinstance(event, Run):
            if isinstance(event, TextDelta) and event.text:
                streamed.append(event.text)
                yield _dump(completion.chunk({"content": event.text}))
            elif step := completion.step(event):
                yield _dump(step)
            event = next(ahead, None) or await events.next()
        answer = as_answer(event.value)
        sent = "".join(streamed)
        if answer.text.startswith(sent) and answer.text != sent:
            yield _dump(completion.chunk({"content": answer.text[len(sent) :]}))
        yield _dump(completion.last(answer, revised=not answer.text.startswith(sent)))
        if include_usage:
            yield _dump(completion.usage_chunk(event.trace))
    except GivenUp as given:
        yield _dump(to_request_error(given.error or given).body())
    except Exception as error:
        yield _dump(to_request_error(error).body())
    yield "[DONE]"


_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))


def _dump(data: dict[str, Any]) -> str:
    return _JSON.encode(data)
