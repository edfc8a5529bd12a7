"""The BM25 scores of a whole corpus as one sparse matrix, searched by the compiled kernel of bm25s."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np

from rag.core.errors import MissingDependency
from retrievers.corpus.snapshot import Snapshot

_CHUNK = 1024
"""Queries that one thread scores at a time, at most, while hits are made of those before; each hand-over waits for Python's lock."""
_WIDEN = 16
"""How many times more hits the kernel is asked for when the last ones tie."""
_COMPILE_AFTER = 200_000_000
"""Passages scored by NumPy (about 1 s) after which the kernel is compiled (seconds), so that a first question need not wait for it."""


class ScoreMatrix:
    """What each term adds to the score of each live passage, at one commit. Safe to search from several threads."""

    _warm: ClassVar[set[bool]] = set()
    """The forms of the kernel (with a mask, without) that this process has compiled; they serve every matrix."""

    def __init__(self, snapshot: Snapshot, k1: float, b: float) -> None:
        merged, lengths = snapshot.postings()
        self.generation = snapshot.generation
        self.size = len(lengths)
        self.vocabulary = {term: id for id, term in enumerate(merged.terms)}
        self.indptr = merged.indptr
        total = int(self.indptr[-1])
        self.rows, self.data = np.empty(total, np.int32), np.empty(total, np.float32)
        frequency = np.diff(self.indptr)
        idf = np.log1p((self.size - frequency + 0.5) / (frequency + 0.5))
        norm = k1 * (1 - b + b * lengths / max(float(lengths.mean()), 1e-9)) if self.size else lengths
        for start, stop, docs, counts in merged.blocks:
            part = slice(int(self.indptr[start]), int(self.indptr[stop]))
            self.rows[part] = docs
            self.data[part] = np.repeat(idf[start:stop], frequency[start:stop]) * counts / (counts + norm[docs])
        self._scored = {True: 0, False: 0}
        self._kernel: Any = None
        self._lock = threading.Lock()

    def search(self, queries: list[list[str]], k: int, allowed: np.ndarray | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield (rows, scores) of shape [some queries, k], best first, equal scores by row; a score of 0 marks no hit.

        ``queries`` are lists of terms, ``allowed`` is a mask over rows.
        """
        masked = allowed is not None
        if masked not in self._warm and not self._worth_compiling(masked, len(queries)):
            for query in queries:
                rows, scores = self._exact(query, k, allowed)
                yield rows[None], scores[None]
            return
        kernel = self._compiled()
        weights = None if allowed is None else allowed.astype(np.float32)
        chunk = max(8, min(_CHUNK, len(queries) // (4 * _threads())))
        parts = [queries[start : start + chunk] for start in range(0, len(queries), chunk)]
        if len(parts) == 1:
            yield self._score(kernel, parts[0], k, weights)
            return
        with ThreadPoolExecutor(_threads(), thread_name_prefix="graft-bm25") as pool:
            futures: list[Future[tuple[np.ndarray, np.ndarray]]] = [pool.submit(self._score, kernel, p, k, weights) for p in parts]
            for future in futures:
                yield future.result()

    def _worth_compiling(self, masked: bool, queries: int) -> bool:
        with self._lock:
            self._scored[masked] += queries * self.size
            return self._scored[masked] > _COMPILE_AFTER

    def _compiled(self) -> Any:
        with self._lock:
            if self._kernel is None:
                try:
                    import bm25s
                except ImportError as error:
                    raise MissingDependency("BM25 needs bm25s and numba: pip install graft-rag") from error
                kernel = bm25s.BM25(method="lucene", backend="numba", auto_compile=False)
                kernel.scores = {"data": self.data, "indices": self.rows, "indptr": self.indptr, "num_docs": self.size}
                kernel.vocab_dict = self.vocabulary
                kernel.nonoccurrence_array = None
                self._kernel = kernel
            return self._kernel

    def _score(self, kernel: Any, queries: list[list[str]], k: int, weights: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        known = [i for i, query in enumerate(queries) if query]  # bm25s does not take a query without terms
        all_rows, all_scores = np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32)
        if not known:
            return all_rows, all_scores
        terms = queries if len(known) == len(queries) else [queries[i] for i in known]
        all_rows[known], all_scores[known] = self._retrieve(kernel, terms, k, k + 1, weights)
        return all_rows, all_scores

    def _retrieve(
        self, kernel: Any, queries: list[list[str]], k: int, asked: int, weights: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Let the kernel find ``asked`` > ``k``: where the last still ties with number k, its choice among the tied was arbitrary."""
        asked = min(asked, self.size)
        # One thread per call: the kernel releases the GIL, and numba's own parallel loops may not be entered from two threads at once.
        found = kernel.retrieve(queries, k=asked, n_threads=1, show_progress=False, weight_mask=weights)
        self._warm.add(weights is not None)
        order = np.lexsort((found.documents, -found.scores), axis=-1)
        rows, scores = (np.take_along_axis(array, order, axis=-1) for array in (found.documents, found.scores))
        if asked < self.size:
            last = scores[:, -1]
            tied = np.flatnonzero((scores[:, k - 1] == last) & (last > 0)).tolist()
            if tied and asked < _WIDEN * k:
                again = self._retrieve(kernel, [queries[i] for i in tied], k, _WIDEN * (k + 1), weights)
                rows[tied, :k], scores[tied, :k] = again
            else:
                for i in tied:
                    rows[i, :k], scores[i, :k] = self._exact(queries[i], k, None if weights is None else weights > 0)
        return rows[:, :k], scores[:, :k]

    def _exact(self, query: list[str], k: int, allowed: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """One query by NumPy: the same sums in the same order as the kernel's, and every tie resolved."""
        scores = np.zeros(self.size, np.float32)
        for term in query:
            id = self.vocabulary.get(term)
            if id is not None:
                part = slice(int(self.indptr[id]), int(self.indptr[id + 1]))
                np.add.at(scores, self.rows[part], self.data[part])
        if allowed is not None:
            scores *= allowed
        least = np.partition(scores, self.size - k)[self.size - k]  # the k-th best; all that tie with it are candidates
        best = np.flatnonzero(scores >= least) if least > 0 else np.flatnonzero(scores)
        best = best[np.lexsort((best, -scores[best]))][:k]
        rows, kept = np.zeros(k, np.int64), np.zeros(k, np.float32)
        rows[: len(best)], kept[: len(best)] = best, scores[best]
        return rows, kept


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
