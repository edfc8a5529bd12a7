"""Building a graph: every mistake is found when it is made, and the message says what would fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import pytest

from rag.core.errors import GraphError, InputError
from rag.core.pipeline import Pipeline
from rag.core.ports import Branch
from rag.core.protocols import Retriever
from rag.core.types import Hit, Passage

HITS = [Hit(Passage(str(i), f"text {i}"), 1.0 / i, i) for i in range(1, 6)]


class Search:
    def run(self, query: str, k: int | None = None) -> list[Hit]:
        return HITS[:k]


def read(question: str, hits: list[Hit]) -> str:
    return f"{question}: {len(hits)} hits"


def fuse(*rankings: list[Hit], k: int = 3) -> list[Hit]:
    return [hit for ranking in rankings for hit in ranking][:k]


async def ask(question: str, retriever: Retriever) -> str:
    return f"{question}: {[h.passage.id for h in await retriever.asearch(question, k=2)]}"


@dataclass(frozen=True)
class Parts:
    head: str
    size: int


class Pair(NamedTuple):
    left: str
    right: int


def split(text: str) -> Parts:
    return Parts(text[:1], len(text))


def pair(text: str) -> Pair:
    return Pair(text, len(text))


def twice(number: int) -> int:
    return 2 * number


def test_a_value_edge_finds_the_one_port_that_fits() -> None:
    pipe = Pipeline().add("search", Search()).add("read", read).connect("search", "read")
    assert pipe.run("q") == "q: 5 hits"
    assert pipe.edges[0].port == "hits"


def test_a_many_to_one_port_takes_edges_in_order_of_connection() -> None:
    pipe = Pipeline().add("a", lambda_hits(0)).add("b", lambda_hits(1)).add("fuse", fuse)
    pipe.connect("b", "fuse").connect("a", "fuse")
    assert [h.passage.id for h in pipe.run("q")] == ["2", "1"]


def lambda_hits(place: int) -> object:
    def one(query: str) -> list[Hit]:
        return [HITS[place]]

    return one


def test_a_call_edge_hands_the_subgraph_over_as_a_function() -> None:
    pipe = Pipeline().add("a", Search()).add("b", Search()).add("fuse", fuse).add("ask", ask)
    pipe.connect("a", "fuse").connect("b", "fuse").connect("fuse", "ask.retriever")
    assert pipe.edges[-1].call
    run = pipe.explain("q")
    assert run.value == "q: ['1', '2']"
    call = run.trace.children[0].children[0]
    assert [child.node for child in call.children] == ["a", "b", "fuse"]


def test_a_node_that_is_called_is_not_run_by_itself() -> None:
    pipe = Pipeline().add("search", Search()).add("ask", ask).connect("search", "ask.retriever")
    assert [s.node for s in pipe.explain("q").trace.children] == ["ask"]


@pytest.mark.parametrize(("node", "outputs"), [(split, {"head": "a", "size": 3}), (pair, {"left": "abc", "right": 3})])
def test_fields_of_a_result_are_outputs(node: object, outputs: dict[str, object]) -> None:
    for name, value in outputs.items():
        pipe = Pipeline().add("node", node).add("keep", lambda_any()).connect(f"node.{name}", "keep")
        assert pipe.run("abc") == value


def lambda_any() -> object:
    def keep(value: object) -> object:
        return value

    return keep


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("nowhere", "read", "there is no node 'nowhere'"),
        ("search", "nowhere.hits", "nodes are: search, read, twice, split"),
        ("search.title", "read", "outputs of 'search' are: 'search'"),
        ("split.size", "read.hits", "'split.size' gives int, which does not fit: 'read.hits' takes list[Hit]"),
        ("search", "read.question", "it would fit 'read.hits'"),
        ("search", "read.nothing", "ports of 'read' are: question: str, hits: list[Hit]"),
        ("search", "twice", "ports are: number: int"),
        ("read", "read", "closes a cycle"),
    ],
)
def test_a_wrong_edge_is_refused_when_it_is_made(source: str, target: str, message: str) -> None:
    pipe = Pipeline().add("search", Search()).add("read", read).add("twice", twice).add("split", split)
    with pytest.raises(GraphError) as error:
        pipe.connect(source, target)
    assert message in str(error.value)
    assert pipe.edges == []


def test_a_port_connected_twice_is_refused() -> None:
    pipe = Pipeline().add("a", Search()).add("b", Search()).add("read", read).connect("a", "read")
    with pytest.raises(GraphError, match=r"connected already \(a -> read\.hits\)"):
        pipe.connect("b", "read.hits")


def test_a_long_cycle_is_refused_with_its_path() -> None:
    pipe = Pipeline().add("a", twice).add("b", twice).add("c", twice).connect("a", "b").connect("b", "c")
    with pytest.raises(GraphError, match="a -> b -> c -> a"):
        pipe.connect("c", "a")


def test_an_ambiguous_target_names_the_candidates() -> None:
    def two(left: str, right: str) -> str:
        return left + right

    pipe = Pipeline().add("read", lambda_text()).add("two", two)
    with pytest.raises(GraphError, match=r"fits several ports of 'two': left: str, right: str; name one, as 'two\.left'"):
        pipe.connect("read", "two")


def lambda_text() -> object:
    def text(question: str) -> str:
        return question

    return text


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (42, "give a function or an object with a typed `run` method"),
        (Search, "an instance, not the class itself"),
        (lambda x: x, "parameter 'x' of .* has no type"),
    ],
)
def test_what_is_no_node_is_refused(node: object, message: str) -> None:
    with pytest.raises(GraphError, match=message):
        Pipeline().add("node", node)


def test_untyped_results_and_catch_all_parameters_are_refused() -> None:
    def silent(x: str) -> None: ...

    def greedy(**anything: str) -> str:
        return ""

    def late(x: str, *many: str) -> str:
        return ""

    for node, message in ((silent, "must say what it returns"), (greedy, "'anything'"), (late, "first")):
        with pytest.raises(GraphError, match=message):
            Pipeline().add("node", node)


@pytest.mark.parametrize("name", ["", "two words", "a.b", "1st", "a->b"])
def test_a_name_that_edges_could_not_spell_is_refused(name: str) -> None:
    with pytest.raises(GraphError, match="letters, digits"):
        Pipeline().add(name, twice)


def test_a_name_and_a_time_limit_are_checked() -> None:
    pipe = Pipeline().add("a", twice)
    with pytest.raises(GraphError, match="already a node 'a'"):
        pipe.add("a", twice)
    with pytest.raises(GraphError, match="positive"):
        pipe.add("b", twice, timeout=0)


def test_an_empty_pipeline_and_an_unfed_many_port_are_refused() -> None:
    with pytest.raises(GraphError, match="no nodes"):
        Pipeline().run("q")
    with pytest.raises(GraphError, match=r"'fuse\.rankings' takes any number"):
        Pipeline().add("fuse", fuse).run("q")


def test_a_subgraph_that_a_call_cannot_fill_is_refused() -> None:
    def picky(query: str, year: int) -> list[Hit]:
        return HITS

    pipe = Pipeline().add("picky", picky).add("ask", ask).connect("picky", "ask.retriever")
    with pytest.raises(GraphError, match=r"'picky.year' \(int\) is open, and a call of Retriever cannot fill it"):
        pipe.run("q")


@pytest.mark.parametrize(
    ("question", "inputs", "message"),
    [
        (
            None,
            {},
            "'search.query' takes str and got no value; inputs of this pipeline are: search.query: str, search.k: int | None (optional)",
        ),
        (5, {}, "the unnamed input is int"),
        ("q", {"depth": 3}, "unknown input 'depth'"),
        ("q", {"k": "many"}, "'search.k' takes int | None, not str"),
        ("q", {"query": "again"}, "no open port takes the unnamed input"),
    ],
)
def test_wrong_inputs_are_refused(question: object, inputs: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        Pipeline().add("search", Search()).run(question, **inputs)
    assert message in str(error.value)


def test_named_inputs_reach_all_ports_of_that_name_or_one() -> None:
    pipe = Pipeline().add("a", Search()).add("b", Search()).add("fuse", fuse).connect("a", "fuse").connect("b", "fuse")
    assert len(pipe.run("q", **{"a.k": 1, "b.k": 1})) == 2
    assert len(pipe.run("q", k=1)) == 1
    assert len(pipe.run(query="q")) == 3


def test_several_ends_give_a_dict() -> None:
    pipe = Pipeline().add("a", lambda_text()).add("b", lambda_text())
    assert pipe.run("q") == {"a": "q", "b": "q"}


def test_branches_meet_again_in_first() -> None:
    from rag.core.join import First

    def route(question: str) -> Branch[Literal["short", "long"], str]:
        return Branch("short" if len(question) < 4 else "long", question)

    def upper(text: str) -> str:
        return text.upper()

    def lower(text: str) -> str:
        return text.lower()

    pipe = Pipeline().add("route", route).add("upper", upper).add("lower", lower).add("end", First())
    pipe.connect("route.short", "upper").connect("route.long", "lower").connect("upper", "end").connect("lower", "end")
    assert pipe.run("Abc") == "ABC"
    run = pipe.explain("ABCDE")
    assert run.value == "abcde"
    assert [s.node for s in run.trace.children] == ["route", "lower", "end"], "the other branch is not run"


def test_an_optional_port_of_a_skipped_branch_keeps_its_default() -> None:
    def route(question: str) -> Branch[Literal["yes", "no"], str]:
        return Branch("no", question)

    def end(question: str, extra: str = "none") -> str:
        return f"{question} {extra}"

    pipe = Pipeline().add("route", route).add("end", end).connect("route.yes", "end.extra")
    assert pipe.run("q") == "q none"


def test_labels_must_be_spelled_out() -> None:
    def route(question: str) -> Branch[str, str]:
        return Branch("x", question)

    with pytest.raises(GraphError, match="Branch\\[Literal"):
        Pipeline().add("route", route)
