from __future__ import annotations

import pytest

from rag.core.pipeline import Pipeline
from rag.core.trace import Span
from rag.core.types import Hit
from rag.serve.observe import tree
from tests.rag.serve.parts import PASSAGE, pipeline


async def _call(pipe: Pipeline) -> Span:
    trace = (await pipe.aexplain("How long?")).trace
    return trace.children[0].children[0]


def test_a_call_edge_that_was_asked_a_query_is_a_retrieval() -> None:
    import asyncio

    span = asyncio.run(_call(pipeline()))
    assert tree.is_call(span)
    assert tree.is_retrieval(span)
    assert (tree.source(span), tree.hits(span), tree.asked_for(span)) == ("search", 1, 4)


def test_a_node_that_searched_an_index_is_a_retrieval() -> None:
    assert tree.is_retrieval(Span("sparse", counts={"searches": 1}))
    assert not tree.is_retrieval(Span("fuse", output="4 Hit"))
    assert not tree.is_retrieval(Span("call judge", {"answer": "x"}))


@pytest.mark.parametrize(
    ("output", "k", "hits"),
    [("4 Hit", "", 4), ("4 Hit", "3", 3), ("2 Hit", "3", 2), ("empty", "3", 0), ("4 str", "", None), ("", "3", None), ("Hit", "x", None)],
)
def test_hits_are_read_from_the_last_node(output: str, k: str, hits: int | None) -> None:
    last = Span("fuse", {"k": k} if k else {}, output)
    assert tree.hits(Span("call fuse", {"query": "x"}, children=[Span("sparse", output="9 Hit"), last])) == hits


def test_a_list_of_hits_is_summed_up_as_read_here() -> None:
    """The wording belongs to the engine; a change there must show here."""
    from rag.core.engine import summary

    assert summary([Hit(PASSAGE, 1.0, 1, "x")] * 3) == "3 Hit"
    assert summary([]) == "empty"


def test_a_span_is_open_until_it_has_a_time_a_value_or_an_error() -> None:
    assert not tree.ended(Span("a"))
    assert tree.ended(Span("a", seconds=0.1))
    assert tree.ended(Span("a", error="cancelled"))


@pytest.mark.parametrize(
    ("node", "told"),
    [("chat a/b c", "chat"), ("score m", "score"), ("chat ", "chat"), ("chat", None), ("chatter m", None), ("call search", None)],
)
def test_a_call_of_a_model_is_told_by_its_name(node: str, told: str | None) -> None:
    assert tree.operation(Span(node)) == told


def test_how_a_model_was_asked_is_read_as_numbers() -> None:
    asked = {"provider": "vllm", "max_tokens": "9", "temperature": "0.5", "seed": "x", "top_p": "", "other": "1"}
    found = tree.request(Span("chat m", asked))
    assert found == {"max_tokens": 9, "temperature": 0.5}
    assert type(found["max_tokens"]) is int
    assert tree.request(Span("chat m")) == {}
