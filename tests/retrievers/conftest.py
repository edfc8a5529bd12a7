"""Fixtures shared by all tests of retrieval."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from retrievers.corpus import Corpus
from tests.retrievers.stubs import HashEncoder, LineChunker


@pytest.fixture
def encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture
def corpus(tmp_path: Path, encoder: HashEncoder) -> Iterator[Corpus]:
    made = Corpus.create(tmp_path / "corpus", encoder=encoder, chunker=LineChunker())
    yield made
    made.close()
