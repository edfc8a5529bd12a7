"""LangChain's own checks of a retriever, and what they leave out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")

from langchain_core.retrievers import BaseRetriever
from langchain_tests.integration_tests import RetrieversIntegrationTests

from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.integrations.langchain import GraftRetriever
from retrievers.bm25 import BM25
from tests.rag.integrations.parts import QUERY, corpus


class TestItsOwnChecks(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _corpus(self, tmp_path: Path) -> None:
        self.searcher = BM25(corpus(tmp_path))

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return GraftRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"searcher": self.searcher}

    @property
    def retriever_query_example(self) -> str:
        return QUERY


def test_documents_say_where_they_are_from(tmp_path: Path) -> None:
    found = BM25(corpus(tmp_path))
    best = found.search(QUERY)[0]
    first = GraftRetriever(searcher=found).invoke(QUERY)[0]
    assert (first.page_content, first.id) == (best.passage.text, best.passage.id)
    assert first.metadata["document"] == best.passage.document
    assert first.metadata["score"] == best.score


def test_a_pipeline_and_a_filter(tmp_path: Path) -> None:
    made = GraftRetriever(searcher=Pipeline().add("search", BM25(corpus(tmp_path))), filter={"lang": "de"})
    assert [found.metadata["document"] for found in made.invoke(QUERY)] == ["d.md"]
    assert [found.metadata["document"] for found in made.invoke(QUERY, filter={"year": {"gt": 2023}})] == ["b.md"]


@pytest.mark.parametrize("k", [0, -3])
def test_a_wrong_k_is_refused(k: int, tmp_path: Path) -> None:
    found = BM25(corpus(tmp_path))
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        GraftRetriever(searcher=found, k=k)
    with pytest.raises(InputError, match="whole number from 1"):
        GraftRetriever(searcher=found).invoke(QUERY, k=k)
