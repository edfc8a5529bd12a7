"""How Self-RAG hears a model's judgements: one protocol, two ways to speak (`Trained`, `Prompted`)."""

from __future__ import annotations

from typing import Protocol

from generators.self_rag.scores import Segment
from rag.core.types import Hit, Prompt


class Vocabulary(Protocol):
    """Writes segments and judges them. ``answer`` is always what has been written so far, free of control tokens."""

    description: str
    """What the reader of an answer is told about it."""

    spare: int
    """Tokens that the judgements take beyond the prompt for writing."""

    def prompt(self, question: str, hit: Hit | None, answer: str) -> Prompt:
        """The prompt that lets the model write the next segment from ``hit``, or from what it knows."""
        ...

    async def retrieval(self, question: str, answer: str) -> tuple[float, bool]:
        """P(Yes) / (P(Yes) + P(No)) for "retrieve before the next segment", and whether the model itself says so."""
        ...

    async def segment(self, question: str, hit: Hit | None, answer: str, max_tokens: int) -> Segment:
        """The next segment, written greedily in at most ``max_tokens`` tokens, with its judgements."""
        ...
