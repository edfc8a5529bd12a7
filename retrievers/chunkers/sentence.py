"""Passages of whole sentences."""

from __future__ import annotations

from rag.core.registry import component
from rag.core.types import Document, Passage
from retrievers.chunkers.budget import budget_of, identity_of, passage_of
from retrievers.chunkers.units import Count, sentence_units, windows


@component
class SentenceChunker:
    """Packs whole sentences up to ``max_tokens``; each passage begins with the last ``overlap`` sentences of the one before.

    The overlap takes at most half of ``max_tokens``. A sentence over the budget is cut at a line, a clause, a word or, last, a
    character; no text is dropped. ``tokenizer`` is a function from a text to its number of tokens (None: `approximate_tokens`).
    Raises `InputError` for a budget below 1 token or an overlap that is negative or not smaller than the budget.
    """

    def __init__(self, max_tokens: int = 200, overlap: int = 1, tokenizer: Count | None = None) -> None:
        self.max_tokens = max_tokens
        self.overlap = overlap
        self.tokenizer = tokenizer
        self._budget = budget_of(self, max_tokens, overlap, tokenizer)

    @property
    def identity(self) -> str:
        """Class and arguments."""
        return identity_of(self, self.max_tokens, self.overlap, self.tokenizer)

    def chunk(self, document: Document) -> list[Passage]:
        """Return the passages of ``document`` in order; a blank document has none."""
        budget = self._budget
        units = list(sentence_units(document.text, 0, len(document.text), budget.max_tokens, budget.count))
        passages: list[Passage] = []
        for window in windows(units, budget.max_tokens, budget.overlap):
            passage = passage_of(document, len(passages), window, document.title)
            if passage is not None:
                passages.append(passage)
        return passages
