"""Retrieval quality on real sets, and the speed of searching through `Corpus` beside the bare libraries.

    python -m benchmarks.retrieval --data ../shared/data

Quality: nDCG@10, recall and R@1 (the share of queries whose first hit is relevant) by ir-measures. Speed: 100,000 synthetic passages; ours
and the bare library take turns in one process, best of fifteen each.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import RetrievalSet, scifact, xquad
from benchmarks.report import Row, parser, report
from rag.core.types import Hit, Passage
from retrievers.analyzers import Analyzer
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from retrievers.dense import Dense
from retrievers.encoders import SentenceEncoder
from retrievers.fuse import Fuse

DEPTH = 100
"""Hits that each part hands to the fusion."""

ENGLISH_MODEL_SETS = ("scifact", "xquad-en")  # MiniLM reads English only


def quality(folder: Path, data: RetrievalSet) -> list[Row]:
    """Index the set and score BM25 and, where the encoder knows the language, dense and hybrid search."""
    dense = data.name in ENGLISH_MODEL_SETS
    corpus = Corpus.create(folder / data.name, encoder=SentenceEncoder() if dense else None)
    corpus.add_passages(data.passages)
    questions = list(data.queries.values())
    runs = {"bm25": BM25(corpus, k=DEPTH).search_batch(questions)}
    if dense:
        runs["dense"] = Dense(corpus, k=DEPTH).search_batch(questions)
        fuse = Fuse(k=DEPTH)
        runs["hybrid"] = [fuse.run(*rankings) for rankings in zip(runs["bm25"], runs["dense"], strict=True)]
    return [row for name, hits in runs.items() for row in score(data, name, hits)]


def score(data: RetrievalSet, method: str, results: Sequence[list[Hit]]) -> list[Row]:
    """The figures of one ranking per query."""
    import ir_measures
    from ir_measures import R, Success, nDCG

    measures = {"ndcg@10": nDCG @ 10, "r@1": Success @ 1, "r@5": R @ 5, "r@10": R @ 10}
    run = {query: {hit.passage.id: -float(hit.rank) for hit in hits} for query, hits in zip(data.queries, results, strict=True)}
    found = ir_measures.calc_aggregate(list(measures.values()), data.relevant, run)
    return [Row("retrieval", f"{data.name}/{method}", name, found[measure]) for name, measure in measures.items()]


def best_of(first: Callable[[], Any], second: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Shortest seconds of each, taking turns so that both see the same machine."""
    times: tuple[list[float], list[float]] = ([], [])
    for call in (first, second):
        call()
    for _ in range(rounds):
        for call, own in zip((first, second), times, strict=True):
            start = time.perf_counter()
            call()
            own.append(time.perf_counter() - start)
    return min(times[0]), min(times[1])


class _Ready:
    """An encoder whose vectors are given: the search benchmark measures the search alone."""

    identity = "benchmark-vectors"

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors
        self.dim = vectors.shape[1]

    def encode(self, texts: list[str], kind: str = "passage") -> np.ndarray:
        """The rows whose numbers the texts begin with."""
        return self.vectors[[int(text.split(" ", 1)[0]) for text in texts]]


def speed(folder: Path, passages: int, queries: int, k: int) -> list[Row]:
    """Queries per second of `Dense` and `BM25` over a corpus, beside bare FAISS and bare bm25s on the same vectors and tokens."""
    import bm25s
    import faiss

    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((passages, 384), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = np.array([f"w{i}" for i in range(50_000)])
    zipf = np.cumsum(1 / np.arange(1, len(words) + 1) ** 1.05)

    def draw(number: int) -> str:
        return " ".join(words[np.searchsorted(zipf, zipf[-1] * rng.random(number))])

    texts = [f"{i} {draw(number)}" for i, number in enumerate(rng.integers(30, 91, passages))]  # lengths vary, as those of real passages do
    asked = [draw(8) for _ in range(queries)]
    points = vectors[rng.integers(0, passages, queries)] + 0.1 * rng.standard_normal((queries, 384), dtype=np.float32)

    corpus = Corpus.create(folder / "speed", encoder=_Ready(vectors))
    corpus.add_passages(Passage(str(i), text) for i, text in enumerate(texts))
    dense, sparse = Dense(corpus, k=k), BM25(corpus, k=k)
    flat = faiss.IndexFlatIP(384)
    flat.add(vectors)
    analyzer = Analyzer()
    bare = bm25s.BM25(method="lucene", k1=sparse.k1, b=sparse.b, backend="numba")
    bare.index(analyzer.tokens(texts), show_progress=False)

    def bare_sparse() -> Any:
        return bare.retrieve(analyzer.tokens(asked), k=k, show_progress=False, n_threads=-1)

    some = points[: queries // 4]
    ours, peer = best_of(lambda: dense.search_vectors(some, k), lambda: flat.search(some, k), 15)
    rows = [Row("retrieval", "search/faiss", "qps", len(some) / ours, "1/s", "IndexFlatIP", len(some) / peer)]
    ours, peer = best_of(lambda: sparse.search_batch(asked, k), bare_sparse, 15)
    return [*rows, Row("retrieval", "search/bm25s", "qps", queries / ours, "1/s", "bm25s numba", queries / peer)]


def main() -> None:
    """Print the table."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", type=Path, required=True, help="folder with xquad/ and scifact/")
    arguments.add_argument("--passages", type=int, default=100_000, help="size of the speed test; 0 leaves it out")
    arguments.add_argument("--queries", type=int, default=4_000, help="queries of the speed test")
    arguments.add_argument(
        "--quality", action=argparse.BooleanOptionalAction, default=True, help="score the real sets (minutes of encoding)"
    )
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        if options.quality:
            for data in (scifact(options.data), xquad(options.data, "en"), xquad(options.data, "zh")):
                rows += quality(Path(folder), data)
        if options.passages:
            rows += speed(Path(folder), options.passages, options.queries, 10)
    report(rows, options, "numpy", "faiss-cpu", "bm25s", "numba", "torch", "sentence-transformers", "ir_measures")


if __name__ == "__main__":
    main()
