from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from rag.core.types import Document, Passage
from retrievers.chunkers import Chunker, approximate_tokens

Check = Callable[[Chunker, Document, int], list[Passage]]


@pytest.fixture(scope="session")
def check() -> Check:
    """Chunks a document and asserts what holds for every chunker and any text."""

    def run(chunker: Chunker, document: Document, budget: int) -> list[Passage]:
        passages = chunker.chunk(document)
        count = getattr(chunker, "tokenizer", None) or approximate_tokens
        covered = [False] * len(document.text)
        for n, passage in enumerate(passages):
            assert passage.text == document.text[passage.start : passage.end]
            assert passage.text == passage.text.strip() != ""
            assert (passage.id, passage.document) == (f"{document.id}:{n}", document.id)
            assert passage.metadata is document.metadata
            assert count(passage.text) <= budget or len(passage.text) == 1
            covered[passage.start : passage.end] = [True] * (passage.end - passage.start)
        assert all(seen or char.isspace() for seen, char in zip(covered, document.text, strict=True))
        for one, two in pairwise(passages):
            assert one.start < two.start
            assert one.end < two.end
        return passages

    return run
