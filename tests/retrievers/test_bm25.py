from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.data import scifact, xquad
from rag.core.errors import InputError
from rag.core.protocols import Retriever
from rag.core.registry import configuration, registered
from rag.core.types import Hit, Passage
from retrievers import scores as scores_module
from retrievers.analyzers import Analyzer
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from retrievers.queries import MAX_QUERY
from tests.retrievers.stubs import LineChunker, document, documents, words

DATA = Path(__file__).parents[2] / "../shared/data"
QUERIES = [words(10_000 + i, 5) for i in range(40)] + ["title 3", "v0", "w0 w0 w1"]


@pytest.fixture(params=["numpy", "kernel"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of scoring: before the kernel is worth compiling, and with it."""
    force(monkeypatch, kernel=request.param == "kernel")
    return str(request.param)


def force(monkeypatch: pytest.MonkeyPatch, kernel: bool) -> None:
    monkeypatch.setattr(scores_module, "_COMPILE_AFTER", 0 if kernel else math.inf)
    monkeypatch.setattr(scores_module.ScoreMatrix, "_warm", set())


def lexical(path: Path, name: str = "corpus") -> Corpus:
    return Corpus.create(path / name, encoder=None, chunker=LineChunker())


def plain(hits: list[Hit]) -> list[tuple[str, float]]:
    return [(hit.passage.id, hit.score) for hit in hits]


def test_scores_are_those_of_bm25s(tmp_path: Path, engine: str) -> None:
    import bm25s

    corpus = lexical(tmp_path)
    corpus.add(documents(40), batch_passages=25)
    passages = list(corpus.each_passage())
    analyzer = Analyzer()
    reference = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    reference.index(analyzer.tokens([f"{p.title}\n{p.text}" for p in passages]), show_progress=False)
    for query, hits in zip(QUERIES, BM25(corpus, k=1000).search_batch(QUERIES), strict=True):
        expected = reference.get_scores(analyzer.tokens([query])[0])
        found = {hit.passage.id: hit.score for hit in hits}
        assert found.keys() == {p.id for p, score in zip(passages, expected, strict=True) if score > 0}
        for passage, score in zip(passages, expected, strict=True):
            assert found.get(passage.id, 0) == pytest.approx(score, abs=1e-5)


def test_a_score_by_hand(tmp_path: Path) -> None:
    corpus = lexical(tmp_path)
    corpus.add_passages([Passage("a", "cat cat dog"), Passage("b", "dog"), Passage("c", "bird fish")])
    (hit,) = BM25(corpus, k1=1.2, b=0.75).search("cats")
    idf = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    assert (hit.passage.id, hit.rank, hit.retriever) == ("a", 1, "BM25")
    assert hit.score == pytest.approx(idf * 2 / (2 + 1.2 * (1 - 0.75 + 0.75 * 3 / 2)), abs=1e-6)


def test_scores_do_not_depend_on_how_the_corpus_came_about(tmp_path: Path, engine: str) -> None:
    whole = lexical(tmp_path, "whole")
    whole.add(documents(30))
    expected = [plain(hits) for hits in BM25(whole, k=20).search_batch(QUERIES)]
    assert sum(map(len, expected)) > 300

    def same(corpus: Corpus, ids_only: bool = False) -> None:
        found = [plain(hits) for hits in BM25(corpus, k=20).search_batch(QUERIES)]
        if ids_only:  # rows are in another order, so only ties may come out otherwise
            assert [sorted(score for _, score in hits) for hits in found] == [sorted(score for _, score in hits) for hits in expected]
        else:
            assert found == expected

    pieces = lexical(tmp_path, "pieces")
    for start in range(0, 30, 5):
        pieces.add(documents(30)[start : start + 5])
    same(pieces)
    pieces.compact()
    same(pieces)
    changed = lexical(tmp_path, "changed")
    changed.add([document(i, version=1) for i in range(60)], batch_passages=30)
    changed.add(documents(30), batch_passages=30)
    changed.delete([f"doc{i:04d}" for i in range(30, 60)])
    same(changed)
    changed.compact()
    same(changed)
    shuffled = documents(30)
    random.Random(1).shuffle(shuffled)
    other = lexical(tmp_path, "other")
    other.add(shuffled, batch_passages=12)
    same(other, ids_only=True)


def test_kernel_and_numpy_agree_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = lexical(tmp_path)
    corpus.add(documents(60))
    filters: list[Any] = [None, {"even": True}]
    answers = []
    for kernel in (True, False):
        force(monkeypatch, kernel=kernel)
        answers.append([BM25(corpus).search_batch(QUERIES, k=k, filter=f) for k in (1, 7, 500) for f in filters])
    assert answers[0] == answers[1]


def test_equal_scores_are_ordered_by_age(tmp_path: Path, engine: str) -> None:
    corpus = lexical(tmp_path)
    corpus.add_passages(Passage(f"p{i:03d}", "same words here" + (" rare" if i in (150, 170) else "")) for i in range(200))
    bm25 = BM25(corpus)
    assert [hit.passage.id for hit in bm25.search("same", k=5)] == [f"p{i:03d}" for i in range(5)]
    assert [hit.passage.id for hit in bm25.search("same rare", k=4)] == ["p150", "p170", "p000", "p001"]
    longest = [hit.passage.id for hit in bm25.search("same rare", k=200)]
    for k in (1, 2, 3, 10, 100, 199):
        assert [hit.passage.id for hit in bm25.search("same rare", k=k)] == longest[:k]


def test_batches_answer_like_single_queries(tmp_path: Path, engine: str) -> None:
    corpus = lexical(tmp_path)
    corpus.add(documents(30))
    bm25 = BM25(corpus)
    many = [*QUERIES, "zzz unknown", *QUERIES, "…"] * 3
    assert bm25.search_batch(many) == [bm25.search(query) for query in many]
    assert bm25.search("zzz unknown") == []
    assert bm25.search_batch(["…", "zzz"]) == [[], []]
    assert bm25.search_batch([]) == []


def test_many_coroutines_get_their_own_answers(tmp_path: Path) -> None:
    corpus = lexical(tmp_path)
    corpus.add(documents(30))
    bm25 = BM25(corpus)
    calls: list[tuple[str, int, dict[str, Any] | None]] = [
        (query, k, f) for query in QUERIES[:12] for k in (2, 5) for f in (None, {"even": True})
    ]

    async def gather() -> list[list[Hit]]:
        return await asyncio.gather(*(bm25.asearch(*call) for call in calls))

    assert asyncio.run(gather()) == [bm25.search(*call) for call in calls]
    assert asyncio.run(bm25.run("title", k=3)) == bm25.search("title", 3)
    assert isinstance(bm25, Retriever)


def test_filters_leave_the_scores_as_they_are(tmp_path: Path, engine: str) -> None:
    corpus = lexical(tmp_path)
    corpus.add(documents(30))
    bm25 = BM25(corpus)
    everything = plain(bm25.search("w0 w1 title", k=1000))
    for query_filter, keep in (
        ({"n": {"lt": 10}}, lambda id: int(id[3:7]) < 10),
        ({"even": True}, lambda id: int(id[3:7]) % 2 == 0),
        ({"document": ["doc0003", "doc0005"]}, lambda id: id[:7] in ("doc0003", "doc0005")),
        ({"document": {"prefix": "doc001"}}, lambda id: id.startswith("doc001")),
        ({"n": {"gt": 100}}, lambda id: False),
    ):
        expected = [(id, score) for id, score in everything if keep(id)]
        assert plain(bm25.search("w0 w1 title", k=1000, filter=query_filter)) == expected
        assert plain(bm25.search("w0 w1 title", k=4, filter=query_filter)) == expected[:4]


def test_words_without_content_do_not_break_it(tmp_path: Path) -> None:
    corpus = lexical(tmp_path)
    corpus.add_passages([Passage("a", "!!!"), Passage("b", "…")])
    assert BM25(corpus).search("word") == []
    corpus.verify()
    corpus.add_passages([Passage("c", "word")])
    assert [hit.passage.id for hit in BM25(corpus).search("word")] == ["c"]


@pytest.mark.parametrize(
    ("query", "k", "message"),
    [
        ("", None, "query is empty"),
        (" \n\t ", None, "query is empty"),
        ("x" * (MAX_QUERY + 1), None, f"{MAX_QUERY} are allowed"),
        ("x\ud800", None, "surrogate"),
        (5, None, "a query is a string"),
        ("x", 0, "integer from 1"),
        ("x", -1, "integer from 1"),
        ("x", 2**31, "integer from 1"),
        ("x", True, "integer from 1"),
        ("x", 1.5, "integer from 1"),
    ],
)
def test_bad_queries(tmp_path: Path, query: Any, k: Any, message: str) -> None:
    corpus = lexical(tmp_path)
    corpus.add(documents(1))
    bm25 = BM25(corpus)
    with pytest.raises(InputError, match=message):
        bm25.search(query, k)
    with pytest.raises(InputError, match=message):
        asyncio.run(bm25.asearch(query, k))


def test_the_longest_query_is_taken_whole(tmp_path: Path) -> None:
    corpus = lexical(tmp_path)
    corpus.add_passages([Passage("a", "needle"), Passage("b", "hay")])
    query = "x " * ((MAX_QUERY - 6) // 2) + "needle"
    assert [hit.passage.id for hit in BM25(corpus).search(query)] == ["a"]


@pytest.mark.parametrize(
    ("arguments", "message"), [({"k": 0}, "integer from 1"), ({"k1": -1}, "k1 must"), ({"b": 1.5}, "b must"), ({"k1": math.nan}, "k1 must")]
)
def test_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BM25(Corpus("x"), **arguments)


def test_configuration_reads_back() -> None:
    corpus = Corpus("x")
    assert registered("BM25") is BM25
    assert configuration(BM25(corpus, k=3, b=0.5)) == {"corpus": corpus, "k": 3, "b": 0.5}


@pytest.mark.skipif(not DATA.is_dir(), reason="the benchmark data is not here")
@pytest.mark.parametrize(("name", "ndcg", "first"), [("scifact", 0.66, 0.52), ("en", 0.96, 0.925), ("zh", 0.96, 0.92)])
def test_quality_on_public_sets(tmp_path: Path, name: str, ndcg: float, first: float) -> None:
    data = scifact(DATA) if name == "scifact" else xquad(DATA, name)
    corpus = lexical(tmp_path)
    corpus.add_passages(data.passages)
    ids = list(data.queries)
    gains, tops = [], []
    for id, hits in zip(ids, BM25(corpus, k=10).search_batch([data.queries[id] for id in ids]), strict=True):
        relevant = data.relevant[id]
        ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(relevant)) + 1))
        gains.append(sum(1 / math.log2(hit.rank + 1) for hit in hits if hit.passage.id in relevant) / ideal)
        tops.append(bool(hits) and hits[0].passage.id in relevant)
    assert np.mean(gains) >= ndcg
    assert np.mean(tops) >= first
