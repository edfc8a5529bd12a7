"""Documents in, passages out. `AutoChunker` is the default; all keep exact offsets: ``passage.text == document.text[start:end]``."""

from __future__ import annotations

from retrievers.chunkers.auto import AutoChunker
from retrievers.chunkers.budget import Chunker
from retrievers.chunkers.markdown import MarkdownChunker
from retrievers.chunkers.sentence import SentenceChunker
from retrievers.chunkers.sentences import sentence_spans
from retrievers.chunkers.tokens import approximate_tokens

__all__ = ["AutoChunker", "Chunker", "MarkdownChunker", "SentenceChunker", "approximate_tokens", "sentence_spans"]
