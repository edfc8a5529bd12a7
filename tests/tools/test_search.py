from __future__ import annotations

from typing import Any

import pytest

from rag.core.errors import CorpusNotFound, InputError
from rag.core.sync import run_sync
from rag.core.trace import Retrieved, listener, span
from rag.core.types import Filter, Hit
from tests.generators.conftest import ScriptedRetriever
from tools.search import CorpusSearch
from tools.tool import call_tool


def test_the_passages_are_the_result_and_the_hits() -> None:
    retriever = ScriptedRetriever(["The lamp\nis brass.", "The stairs are oak."], title="House")
    with listener((events := []).append), span("test") as trace:
        result = run_sync(call_tool(CorpusSearch(retriever, k=2), {"query": "lamp"}))
    assert result.text == "House: The lamp is brass.\nHouse: The stairs are oak."
    assert [hit.passage.id for hit in result.hits] == ["p1", "p2"]
    assert retriever.calls == [("lamp", 2, None)]
    assert trace.counts["retrievals"] == 1
    assert isinstance(events[0], Retrieved)


def test_no_hit_says_so_and_an_empty_query_is_an_error() -> None:
    tool = CorpusSearch(ScriptedRetriever([]))
    assert run_sync(call_tool(tool, {"query": "lamp"})).text == "nothing found"
    assert "empty" in run_sync(call_tool(tool, {"query": " "})).error


def test_a_retriever_that_raises_is_the_error_of_the_call() -> None:
    class Broken:
        async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
            raise CorpusNotFound("there is no corpus at 'handbook'")

    assert run_sync(call_tool(CorpusSearch(Broken()), {"query": "lamp"})).error == "there is no corpus at 'handbook'"


@pytest.mark.parametrize("k", [0, -1, True, 1.5, "2"])
def test_k_is_a_positive_integer(k: Any) -> None:
    with pytest.raises(InputError, match="k must be an integer"):
        CorpusSearch(ScriptedRetriever([]), k=k)
