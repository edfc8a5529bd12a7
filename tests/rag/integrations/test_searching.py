from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.integrations.searching import check_k, metadata, search
from retrievers.bm25 import BM25
from tests.rag.integrations.parts import QUERY, corpus


@pytest.mark.parametrize("k", [0, -1, True, "3", 2.0, None])
def test_k_is_a_whole_number_from_1(k: Any) -> None:
    with pytest.raises(InputError, match="whole number from 1"):
        check_k(k)


def test_a_retriever_and_a_pipeline_that_ends_in_hits(tmp_path: Path) -> None:
    found = BM25(corpus(tmp_path), k=5)
    pipe = Pipeline().add("search", found)
    hits, piped = (asyncio.run(search(one, QUERY, 2, None)) for one in (found, pipe))
    assert [hit.passage.id for hit in hits] == [hit.passage.id for hit in piped]
    assert len(hits) == 2
    filtered = [asyncio.run(search(one, QUERY, 5, {"lang": "de"})) for one in (found, pipe)]
    assert [[hit.passage.document for hit in one] for one in filtered] == [["d.md"], ["d.md"]]


def test_a_pipeline_that_ends_in_something_else_is_refused() -> None:
    def shout(query: str) -> str:
        return query.upper()

    with pytest.raises(InputError, match="ends in str"):
        asyncio.run(search(Pipeline().add("shout", shout), QUERY, 2, None))


def test_metadata_says_where_a_passage_is_from(tmp_path: Path) -> None:
    (hit,) = asyncio.run(search(BM25(corpus(tmp_path)), QUERY, 5, {"lang": "de"}))
    found = metadata(hit)
    assert (found["lang"], found["document"], found["rank"], found["retriever"]) == ("de", "d.md", 1, "BM25")
    assert hit.passage.text == "Ein suit ist ein Anzug."[found["start"] : found["end"]]
