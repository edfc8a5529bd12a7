from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.core.errors import InputError
from rag.core.registry import configuration, registered
from rag.core.trace import span
from rag.core.types import Hit, Passage
from retrievers.fuse import Fuse


def ranking(*ids: str, retriever: str = "bm25", scores: list[float] | None = None) -> list[Hit]:
    found = scores or [1 / rank for rank in range(1, len(ids) + 1)]
    return [Hit(Passage(i, f"text of {i}"), s, r, retriever) for r, (i, s) in enumerate(zip(ids, found, strict=True), start=1)]


def ids(hits: list[Hit]) -> list[str]:
    return [hit.passage.id for hit in hits]


rankings = st.lists(
    st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=10).map(lambda names: ranking(*names)), min_size=1, max_size=4
)
scored = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=10).map(
    lambda scores: ranking(*"abcdefghij"[: len(scores)], scores=sorted(scores, reverse=True))
)
methods = st.sampled_from(["rrf", "weighted"])


def test_reciprocal_rank_fusion_by_hand():
    fused = Fuse(k=10).run(ranking("a", "b", "c"), ranking("c", "a", retriever="dense"))
    assert ids(fused) == ["a", "c", "b"]
    assert [hit.score for hit in fused] == pytest.approx([1 / 61 + 1 / 62, 1 / 63 + 1 / 61, 1 / 62])
    assert [hit.rank for hit in fused] == [1, 2, 3]
    assert {hit.retriever for hit in fused} == {"fuse(bm25+dense)"}


def test_weights_of_reciprocal_ranks():
    first, second = ranking("a", "b"), ranking("b", "a")
    assert ids(Fuse(weights=[2, 1]).run(first, second)) == ["a", "b"]
    assert ids(Fuse(weights=[1, 2]).run(first, second)) == ["b", "a"]


def test_weighted_scales_each_ranking():
    fused = Fuse(method="weighted", weights=[1, 0.5]).run(ranking("a", "b", "c", scores=[30, 20, 10]), ranking("c", "b", scores=[0.9, 0.1]))
    assert {hit.passage.id: hit.score for hit in fused} == pytest.approx({"a": 1.0, "b": 0.5, "c": 0.5})


def test_weighted_gives_equal_scores_the_whole_weight():
    assert [hit.score for hit in Fuse(method="weighted").run(ranking("a", "b", scores=[7, 7]))] == [1.0, 1.0]


def test_ties_go_to_the_better_rank_then_to_the_first_seen():
    assert ids(Fuse(weights=[1, 1]).run(ranking("a", "b"), ranking("c", "d"))) == ["a", "c", "b", "d"]
    assert ids(Fuse(weights=[0, 1, 1]).run(ranking("x", "a"), ranking("b"), ranking("a"))) == ["a", "b", "x"]  # a's best rank is its last
    tied = Fuse(method="weighted").run(ranking("a", "b", "c", scores=[2, 1, 0]), ranking("c", "x", scores=[1, 0]))
    assert ids(tied) == ["a", "c", "b", "x"]  # a and c score 1.0 and both were first somewhere; a was seen before


def test_a_passage_twice_in_one_ranking_counts_once():
    once = Fuse().run(ranking("a", "b"))
    twice = Fuse().run([*ranking("a", "b"), *ranking("a")])
    assert [(h.passage.id, h.score) for h in twice] == [(h.passage.id, h.score) for h in once]


def test_empty_rankings():
    assert Fuse().run([], []) == []
    with span("fuse") as here:
        assert ids(Fuse().run([], ranking("a"))) == ["a"]
    assert here.notes == ["ranking 1 of 2 is empty"]


@given(rankings, st.randoms(), methods)
def test_equal_weights_do_not_care_about_the_order_of_rankings(lists, random, method):
    shuffled = list(lists)
    random.shuffle(shuffled)
    fuse = Fuse(k=100, method=method)
    assert sorted((h.passage.id, h.score) for h in fuse.run(*lists)) == sorted((h.passage.id, h.score) for h in fuse.run(*shuffled))


@given(scored, methods)
def test_a_single_ranking_keeps_its_order(single, method):
    assert ids(Fuse(k=100, method=method).run(single)) == ids(single)


@given(rankings, st.integers(1, 12), methods)
def test_at_most_k_unique_and_falling(lists, k, method):
    fused = Fuse(k=k, method=method).run(*lists)
    assert len(fused) == min(k, len({hit.passage.id for hits in lists for hit in hits}))
    assert len(set(ids(fused))) == len(fused)
    assert [hit.rank for hit in fused] == list(range(1, len(fused) + 1))
    assert [hit.score for hit in fused] == sorted((hit.score for hit in fused), reverse=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {"k": 0},
        {"k": -1},
        {"k": True},
        {"k": 2.0},
        {"method": "sum"},
        {"weights": [1, -1]},
        {"weights": [0, 0]},
        {"weights": [1, math.nan]},
        {"weights": []},
        {"constant": -1},
        {"constant": math.inf},
    ],
)
def test_bad_settings(arguments):
    with pytest.raises(InputError, match=f"Fuse: {next(iter(arguments))}"):
        Fuse(**arguments)


def test_a_missing_ranking_is_an_error():
    with pytest.raises(InputError, match="2 weights for 1 rankings"):
        Fuse(weights=[1, 1]).run(ranking("a"))
    with pytest.raises(InputError, match="no ranking"):
        Fuse().run()


def test_scores_that_are_no_numbers():
    broken = ranking("a", "b", scores=[math.nan, 1.0])
    assert ids(Fuse().run(broken)) == ["a", "b"]
    with pytest.raises(InputError, match="ranking 1 has a score that is not finite"):
        Fuse(method="weighted").run(broken)


def test_one_id_for_two_texts_is_an_error():
    other = [replace(ranking("a")[0], passage=Passage("a", "a passage of another corpus"), retriever="dense")]
    with pytest.raises(InputError, match="different texts under the passage id 'a'"):
        Fuse().run(ranking("a"), other)


@pytest.mark.parametrize(("ours", "theirs", "fits"), [("x", "x", True), ("x", "y", False), ("", "", False), ("x", "", False)])
def test_a_passage_may_change_between_two_searches_of_one_corpus(ours: str, theirs: str, fits: bool) -> None:
    first = [replace(ranking("a")[0], corpus=ours)]
    other = [replace(first[0], passage=Passage("a", "its text after an update"), retriever="dense", corpus=theirs)]
    if not fits:
        with pytest.raises(InputError, match="different texts"):
            Fuse().run(first, other)
        return
    (hit,) = Fuse().run(first, other)
    assert hit.passage == first[0].passage
    assert hit.score == pytest.approx(2 / 61)


def test_it_is_a_component_that_can_be_read_back():
    assert registered("Fuse") is Fuse
    assert configuration(Fuse(k=3, weights=[1, 2])) == {"k": 3, "weights": [1, 2]}


def test_a_call_may_ask_for_another_k() -> None:
    ranking = [Hit(Passage(str(i), f"text {i}"), 1.0, i) for i in range(1, 9)]
    assert len(Fuse(k=3).run(ranking, k=5)) == 5
    with pytest.raises(InputError, match="k must be at least 1, not 0"):
        Fuse(k=3).run(ranking, k=0)
