from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.core.errors import ConfigError, InputError
from rag.core.protocols import Retriever
from rag.core.registry import configuration, registered
from rag.core.types import Hit, Passage
from retrievers.corpus import Corpus, ann
from retrievers.dense import Dense
from tests.retrievers.stubs import HashEncoder, LineChunker, documents, words

QUERIES = [words(10_000 + i, 5) for i in range(20)]
DIM = 16
APPROXIMATE = ["hnsw", "ivf-sq8", "ivf-pq"]


class Given:
    """An encoder whose texts are numbers of rows in a table."""

    identity = "given"
    dim = DIM

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def encode(self, texts: list[str], kind: str = "passage") -> np.ndarray:
        return np.stack([self.vectors[int(text)] for text in texts])


def clustered(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(0)
    centres = random.standard_normal((40, DIM))
    random = np.random.default_rng(seed)
    vectors = centres[random.integers(0, 40, count)] + 0.35 * random.standard_normal((count, DIM))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


VECTORS = clustered(6000, 1)


@pytest.fixture(scope="module", params=["flat", *APPROXIMATE])
def compacted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """6,000 vectors in a compacted segment, 300 of them deleted later, and 500 more behind it."""
    corpus = Corpus.create(tmp_path_factory.mktemp("dense") / request.param, encoder=Given(VECTORS), chunker=LineChunker())
    rows = range(5500)
    corpus.add_passages((Passage(f"p{i}", str(i), metadata={"i": i, "third": i % 3 == 0}) for i in rows), batch_passages=5500)
    corpus.compact(request.param)
    corpus.delete([f"p{i}" for i in range(0, 3000, 10)])
    corpus.add_passages(Passage(f"p{i}", str(i), metadata={"i": i, "third": i % 3 == 0}) for i in range(5500, 6000))
    kinds = corpus.info()["passages_by_index"]
    assert kinds == ({"flat": 6000} if request.param == "flat" else {request.param: 5500, "flat": 500})
    return corpus


def allowed(i: int) -> bool:
    return i >= 3000 or i % 10 != 0


def truth(queries: np.ndarray, k: int, keep: Any = lambda i: True) -> list[list[str]]:
    rows = np.array([i for i in range(6000) if allowed(i) and keep(i)])
    scores = queries @ VECTORS[rows].T
    return [[f"p{rows[j]}" for j in np.argsort(-row, kind="stable")[:k]] for row in scores]


def recall(found: list[list[Hit]], expected: list[list[str]]) -> float:
    pairs = zip(found, expected, strict=True)
    return float(np.mean([len({hit.passage.id for hit in hits} & set(ids)) / len(ids) for hits, ids in pairs]))


def test_every_kind_finds_nearly_all_and_scores_exactly(compacted: Corpus) -> None:
    queries = clustered(100, 2)
    found = Dense(compacted).search_vectors(queries, 10)
    assert recall(found, truth(queries, 10)) >= 0.9
    for vector, hits in zip(queries, found, strict=True):
        assert [hit.rank for hit in hits] == list(range(1, 11))
        assert [hit.score for hit in hits] == pytest.approx([float(vector @ VECTORS[int(hit.passage.text)]) for hit in hits], abs=1e-5)
        assert all(allowed(int(hit.passage.text)) for hit in hits)


def test_flat_search_of_any_corpus_is_exact(compacted: Corpus) -> None:
    queries = clustered(50, 3)
    found = Dense(compacted, index="flat").search_vectors(queries, 10)
    assert [[hit.passage.id for hit in hits] for hits in found] == truth(queries, 10)


@pytest.mark.parametrize(
    ("filter", "keep", "least"),
    [
        ({"third": True}, lambda i: i % 3 == 0, 0.9),
        ({"i": {"lt": 60}}, lambda i: i < 60, 1.0),
        ({"i": {"gte": 5990}}, lambda i: i >= 5990, 1.0),
        ({"i": [1, 2, 5600]}, lambda i: i in (1, 2, 5600), 1.0),
    ],
)
def test_filters_and_deletions_together(compacted: Corpus, filter: dict[str, Any], keep: Any, least: float) -> None:
    queries = clustered(50, 4)
    found = Dense(compacted).search_vectors(queries, 10, filter)
    expected = truth(queries, 10, keep)
    assert [len(hits) for hits in found] == [len(ids) for ids in expected]
    assert recall(found, expected) >= least
    assert all(keep(int(hit.passage.text)) for hits in found for hit in hits)
    assert Dense(compacted).search_vectors(queries, 10, {"i": -1}) == [[]] * 50


def test_asking_for_everything_gives_everything(compacted: Corpus) -> None:
    (hits,) = Dense(compacted).search_vectors(clustered(1, 5), 50_000)
    assert len(hits) == len(compacted) == 5700
    assert [hit.passage.id for hit in hits] == truth(clustered(1, 5), 6000)[0]


def test_looking_at_more_finds_more(compacted: Corpus) -> None:
    queries = clustered(100, 6)
    expected = truth(queries, 10)
    little = recall(Dense(compacted, probe=1, ef=10).search_vectors(queries, 10), expected)
    much = recall(Dense(compacted, probe=64, ef=512).search_vectors(queries, 10), expected)
    assert much >= max(little, 0.97)


def test_a_kind_that_no_segment_has_means_exact_search(compacted: Corpus) -> None:
    kind = compacted.manifest().segments[0].kind
    other = "hnsw" if kind == "ivf-pq" else "ivf-pq"
    queries = clustered(20, 7)
    found = Dense(compacted, index=other).search_vectors(queries, 10)
    assert [[hit.passage.id for hit in hits] for hits in found] == truth(queries, 10)


def test_small_segments_stay_exact(corpus: Corpus) -> None:
    corpus.add(documents(5))
    corpus.compact("hnsw")
    assert corpus.info()["passages_by_index"] == {"flat": 15}
    assert corpus.info()["index"] == "hnsw"
    assert str(ann.SMALLEST) in corpus.info()["note"]


@pytest.mark.parametrize(
    ("size", "kind"), [(10, "flat"), (199_999, "flat"), (200_000, "hnsw"), (2_000_000, "ivf-sq8"), (20_000_000, "ivf-pq")]
)
def test_auto_chooses_by_size(size: int, kind: str) -> None:
    assert ann.choose("auto", size) == kind
    assert ann.choose("flat", size) == "flat"


def test_text_queries(corpus: Corpus) -> None:
    corpus.add(documents(20), batch_passages=9)
    dense = Dense(corpus, k=7)
    passages = list(corpus.each_passage())
    encoder = HashEncoder()
    scores = encoder.encode(QUERIES) @ encoder.encode([f"{p.title}\n{p.text}" for p in passages]).T
    found = dense.search_batch(QUERIES)
    for row, hits in zip(scores, found, strict=True):
        assert [hit.passage for hit in hits] == [passages[i] for i in np.argsort(-row, kind="stable")[:7]]
        assert [hit.score for hit in hits] == pytest.approx(np.sort(row)[::-1][:7], abs=1e-5)
        assert {hit.retriever for hit in hits} == {"Dense"}
    assert dense.search_batch([]) == []
    assert len(dense.search("w1", k=1000)) == 60


def test_changes_are_seen_and_no_deleted_passage_is_found(corpus: Corpus) -> None:
    dense = Dense(corpus, k=1000)
    corpus.add(documents(10))
    assert len(dense.search("title")) == 30
    corpus.delete(["doc0004"])
    assert {hit.passage.document for hit in dense.search("title")} == {f"doc{i:04d}" for i in range(10) if i != 4}
    corpus.add(documents(10, version=1))
    assert {hit.passage.text[-2:] for hit in dense.search("title")} == {"v1"}


def test_equal_vectors_are_ordered_by_age(corpus: Corpus) -> None:
    corpus.add_passages([Passage(f"p{i:02d}", "same text") for i in range(20)], batch_passages=6)
    assert [hit.passage.id for hit in Dense(corpus).search("same text", k=20)] == [f"p{i:02d}" for i in range(20)]


def test_many_coroutines_share_batches(corpus: Corpus, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.add(documents(20))
    dense = Dense(corpus)
    expected = [[hit.passage.id for hit in dense.search(query, k, filter)] for query, k, filter in calls()]
    sizes: list[int] = []
    plain = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts, kind="passage": (sizes.append(len(texts)), plain(texts, kind))[1])

    async def gather() -> list[list[Hit]]:
        return await asyncio.gather(*(dense.asearch(*call) for call in calls()))

    assert [[hit.passage.id for hit in hits] for hits in asyncio.run(gather())] == expected
    assert sum(sizes) == len(expected)
    assert len(sizes) < len(expected)
    assert asyncio.run(dense.run("title", k=3)) == dense.search("title", 3)
    assert isinstance(dense, Retriever)


def calls() -> list[tuple[str, int, dict[str, Any] | None]]:
    return [(query, k, filter) for k in (2, 5) for filter in (None, {"even": True}) for query in QUERIES]


def test_bad_arguments(corpus: Corpus) -> None:
    corpus.add(documents(2))
    dense = Dense(corpus)
    for query in ("", "  ", "x" * 40_000, "\ud800"):
        with pytest.raises(InputError):
            dense.search(query)
        with pytest.raises(InputError):
            asyncio.run(dense.asearch(query))
    for k in (0, -3, 10**9, "10"):
        with pytest.raises(InputError, match="integer from 1"):
            dense.search("x", k)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"\[queries, 32\], not \[1, 5\]"):
        dense.search_vectors(np.ones((1, 5)))
    with pytest.raises(InputError, match="not finite"):
        dense.search_vectors(np.full((1, 32), np.nan))
    with pytest.raises(ConfigError, match="allowed are: auto, flat"):
        Dense(corpus, index="annoy")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="probe and ef"):
        Dense(corpus, probe=0)
    with pytest.raises(InputError, match="integer from 1"):
        Dense(corpus, k=0)


def test_configuration_reads_back() -> None:
    corpus = Corpus("x")
    assert registered("Dense") is Dense
    assert configuration(Dense(corpus, index="hnsw", ef=99)) == {"corpus": corpus, "index": "hnsw", "ef": 99}


def test_a_gpu_gives_the_answers_of_the_cpu(tmp_path: Path) -> None:
    faiss = ann.load_faiss()
    if getattr(faiss, "get_num_gpus", lambda: 0)() == 0:
        pytest.skip("FAISS sees no GPU here")
    corpus = Corpus.create(tmp_path / "gpu", encoder=Given(VECTORS), chunker=LineChunker())
    corpus.add_passages(Passage(f"p{i}", str(i)) for i in range(3000))
    queries = clustered(20, 8)
    found = Dense(corpus).search_vectors(queries, 10)
    scores = queries @ VECTORS[:3000].T
    assert [[hit.passage.text for hit in hits] for hits in found] == [[str(i) for i in np.argsort(-row)[:10]] for row in scores]
