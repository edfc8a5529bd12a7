"""One text completion, whole or as a stream of chunks, in OpenAI's older format. graft's own part stands under the key ``graft``."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from rag.core.engine import Run
from rag.core.trace import Span
from rag.core.types import Answer
from rag.serve import chat


@dataclass(frozen=True, slots=True)
class TextCompletion:
    """A chat completion told in the older format: each message is a text, and so is what a chunk adds to it."""

    told: chat.Completion

    @classmethod
    def of(cls, model: str, remarks: list[str], events: bool = False) -> TextCompletion:
        """What all chunks of one answer share. ``events`` as in `rag.serve.chat.Completion`."""
        return cls(chat.Completion(model, remarks, events, id=f"cmpl-{uuid.uuid4().hex}"))

    def whole(self, run: Run) -> dict[str, Any]:
        """The answer in one piece. Raises the run's error."""
        answer = self.told.whole(run)
        told = answer["choices"][0]
        message = told["message"]
        choice = {
            "index": 0,
            "text": message["content"],
            "logprobs": None,
            "finish_reason": told["finish_reason"],
            "graft": message["graft"],
        }
        return {**answer, "object": "text_completion", "choices": [choice]}

    def chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        """One piece of a stream."""
        return _as_text(self.told.chunk(delta, finish))

    def step(self, event: object) -> dict[str, Any] | None:
        """A chunk without text that tells of a retrieval or a tool call; None for what a client need not hear."""
        told = self.told.step(event)
        return told and _as_text(told)

    def last(self, answer: Answer, revised: bool) -> dict[str, Any]:
        """The piece that ends the text. ``revised``: the final text is not what was streamed, so it is given in full."""
        return _as_text(self.told.last(answer, revised))

    def usage_chunk(self, trace: Span) -> dict[str, Any]:
        """The piece that `stream_options.include_usage` asks for."""
        return _as_text(self.told.usage_chunk(trace))


def _as_text(chunk: dict[str, Any]) -> dict[str, Any]:
    pieces = [
        {"index": 0, "text": piece["delta"].get("content", ""), "logprobs": None, "finish_reason": piece["finish_reason"]}
        for piece in chunk["choices"]
    ]
    return {**chunk, "object": "text_completion", "choices": pieces}
