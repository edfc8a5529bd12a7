from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from generators.retrieval import append, interleave, retrieve
from rag.core.trace import Retrieved, listener, span
from rag.core.types import Hit, Passage
from tests.generators.conftest import ScriptedRetriever

RANKINGS = st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=6, unique=True), min_size=1, max_size=4)


def hits(ids):
    return [Hit(Passage(id, id), 1.0, rank) for rank, id in enumerate(ids, start=1)]


def ids(found):
    return [hit.passage.id for hit in found]


def test_a_retrieval_is_counted_and_heard():
    heard = []
    with span("node") as seen, listener(heard.append):
        found = asyncio.run(retrieve(ScriptedRetriever(["one", "two", "three"]), "who?", 2))
    assert seen.counts == {"retrievals": 1}
    assert heard == [Retrieved("who?", tuple(found))]
    assert len(found) == 2


def test_rankings_are_merged_in_turn():
    merged = interleave([hits("abc"), hits("bxy"), hits("q")], 5)
    assert ids(merged) == ["a", "b", "q", "x", "c"]
    assert [hit.rank for hit in merged] == [1, 2, 3, 4, 5]
    assert interleave([[], []], 3) == []


@given(RANKINGS, st.integers(1, 8))
def test_merging_keeps_each_passage_once_and_the_first_first(rankings, k):
    merged = ids(interleave([hits(r) for r in rankings], k))
    assert len(merged) == len(set(merged)) == min(k, len({id for r in rankings for id in r}))
    if rankings[0]:
        assert merged[0] == rankings[0][0]


@given(RANKINGS, st.integers(1, 8))
def test_a_pool_keeps_its_places_and_its_size(rankings, most):
    pool = []
    for ranking in rankings:
        grown = append(pool, hits(ranking), most)
        assert ids(grown)[: len(pool)] == ids(pool)
        assert len(ids(grown)) == len(set(ids(grown))) <= most
        pool = grown
