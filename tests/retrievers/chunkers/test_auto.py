from __future__ import annotations

import subprocess
import sys

import pytest

from rag.core.errors import InputError
from rag.core.registry import configuration
from rag.core.types import Document
from retrievers.chunkers import AutoChunker, Chunker, MarkdownChunker, SentenceChunker

TEXT = "# One\nText one.\n# Two\nText two."


@pytest.mark.parametrize(("form", "chunker"), [("markdown", MarkdownChunker(50, 0)), ("text", SentenceChunker(50, 0))])
def test_the_format_chooses(form, chunker):
    document = Document("d", TEXT, format=form)
    assert AutoChunker(50, 0).chunk(document) == chunker.chunk(document)
    assert len(chunker.chunk(document)) == (2 if form == "markdown" else 1)


def test_identity_configuration_and_contract():
    assert AutoChunker(50).identity == "AutoChunker(max_tokens=50, overlap=1)"
    assert configuration(AutoChunker(50)) == {"max_tokens": 50}
    assert isinstance(AutoChunker(), Chunker)


def test_errors_name_the_class_that_was_asked_for():
    with pytest.raises(InputError, match=r"^AutoChunker: overlap"):
        AutoChunker(overlap=-1)


def test_importing_readers_and_chunkers_is_light():
    heavy = "torch transformers sentence_transformers faiss bm25s numba trafilatura docx pypdf lxml yaml charset_normalizer httpx numpy"
    code = f"import retrievers.readers, retrievers.chunkers, sys; print([m for m in {heavy.split()!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
