"""The chunker that fits a document's format."""

from __future__ import annotations

from rag.core.registry import component
from rag.core.types import Document, Passage
from retrievers.chunkers.budget import budget_of, identity_of
from retrievers.chunkers.markdown import MarkdownChunker
from retrievers.chunkers.sentence import SentenceChunker
from retrievers.chunkers.units import Count


@component
class AutoChunker:
    """Cuts Markdown by heading (`MarkdownChunker`) and everything else by sentence (`SentenceChunker`), with the same budget."""

    def __init__(self, max_tokens: int = 200, overlap: int = 1, tokenizer: Count | None = None) -> None:
        self.max_tokens = max_tokens
        self.overlap = overlap
        self.tokenizer = tokenizer
        budget_of(self, max_tokens, overlap, tokenizer)
        self._markdown = MarkdownChunker(max_tokens, overlap, tokenizer)
        self._sentences = SentenceChunker(max_tokens, overlap, tokenizer)

    @property
    def identity(self) -> str:
        """Class and arguments."""
        return identity_of(self, self.max_tokens, self.overlap, self.tokenizer)

    def chunk(self, document: Document) -> list[Passage]:
        """Return the passages of ``document`` in order; a blank document has none."""
        chunker = self._markdown if document.format == "markdown" else self._sentences
        return chunker.chunk(document)
