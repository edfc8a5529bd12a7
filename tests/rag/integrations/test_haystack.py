"""In a Haystack pipeline, written to its YAML and read again, with Haystack's filters."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

haystack = pytest.importorskip("haystack")

from rag.core.errors import InputError  # noqa: E402
from rag.integrations.haystack import GraftRetriever, condition  # noqa: E402
from retrievers.bm25 import BM25  # noqa: E402
from tests.rag.integrations.parts import QUERY, corpus  # noqa: E402


def names(answer: dict[str, Any]) -> list[str]:
    return [found.meta["document"] for found in answer["documents"]]


def test_in_a_pipeline_and_through_its_yaml(tmp_path: Path) -> None:
    found = BM25(corpus(tmp_path), k=3)
    pipe = haystack.Pipeline()
    pipe.add_component("retriever", GraftRetriever(found, top_k=2))
    asked = {"retriever": {"query": QUERY}}
    before = pipe.run(asked)["retriever"]
    assert names(before) == [hit.passage.document for hit in found.search(QUERY, k=2)]
    assert before["documents"][0].score == found.search(QUERY)[0].score
    after = haystack.Pipeline.loads(pipe.dumps(), allowed_modules=["rag.integrations.haystack"]).run(asked)["retriever"]
    assert names(after) == names(before)


def test_each_call_may_ask_for_another_number(tmp_path: Path) -> None:
    made = GraftRetriever(BM25(corpus(tmp_path)), top_k=1)
    assert [len(made.run(QUERY, top_k=k)["documents"]) for k in (None, 1, 3)] == [1, 1, 3]
    assert len(asyncio.run(made.run_async(QUERY, top_k=2))["documents"]) == 2
    for wrong in (0, -1, True):
        with pytest.raises(InputError, match="whole number"):
            made.run(QUERY, top_k=wrong)


def test_haystacks_filters(tmp_path: Path) -> None:
    found = BM25(corpus(tmp_path))
    german = {"field": "meta.lang", "operator": "==", "value": "de"}
    late = {"operator": "AND", "conditions": [{"field": "meta.year", "operator": ">=", "value": 2022}, {**german, "operator": "!="}]}
    assert names(GraftRetriever(found, filters=german).run(QUERY)) == ["d.md"]
    assert sorted(names(GraftRetriever(found, filters=german).run(QUERY, filters=late))) == ["b.md", "c.md"]
    assert names(GraftRetriever(found).run(QUERY, filters={"field": "year", "operator": "in", "value": [2021]})) == ["d.md"]


def test_what_a_filter_means() -> None:
    assert condition(None) is None
    assert condition({}) is None
    year = [{"field": "meta.year", "operator": operator, "value": value} for operator, value in ((">", 1), ("<=", 5))]
    assert condition({"operator": "AND", "conditions": year}) == {"year": {"gt": 1, "lte": 5}}


@pytest.mark.parametrize(
    "filters",
    [
        {"operator": "OR", "conditions": []},
        {"operator": "NOT", "conditions": []},
        {"operator": "AND", "conditions": "x"},
        {"field": "a", "operator": "~", "value": 1},
        {"field": 5, "operator": "==", "value": 1},
        {"field": "a", "operator": "=="},
        {"a": 1},
        {"operator": "AND", "conditions": [{"field": "a", "operator": "==", "value": 1}] * 2},
    ],
)
def test_filters_that_cannot_be_said_are_refused(filters: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="filters"):
        condition(filters)


def test_a_wrong_number_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="whole number"):
        GraftRetriever(BM25(corpus(tmp_path)), top_k=0)
