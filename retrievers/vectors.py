"""The vectors of a whole corpus at one commit: one exact index in memory, and beside it the approximate ones that segments bring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from retrievers.corpus import ann
from retrievers.corpus.segment import Segment
from retrievers.corpus.snapshot import Snapshot

_REFINE = 10
"""Candidates per hit that a quantised index delivers, to be scored again with the exact vectors."""
_SCAN = 0.05
"""Share of passages that a filter leaves below which an approximate index is passed over: walking it would mostly meet the others."""
_BLOCK = 16_384
_GPU_HITS = 2048
"""Hits per query that FAISS can deliver on a GPU."""

Found = tuple[np.ndarray, np.ndarray]
"""(rows, scores), both [queries, k], best first; row -1 where there was nothing more."""


class VectorIndex:
    """Finds the nearest live passages at one commit."""

    def __init__(self, snapshot: Snapshot, dim: int, kind: str, probe: int, ef: int) -> None:
        self.generation = snapshot.generation
        placed = list(zip(snapshot.segments, snapshot.keeps, snapshot.firsts(), strict=True))
        approximate = [place for place in placed if place[0].record.kind != "flat" and kind in ("auto", place[0].record.kind)]
        exact = [place for place in placed if place not in approximate]
        self._parts: list[_Exact | _Approximate] = [_Approximate(*place, probe, ef) for place in approximate]
        if exact:
            self._parts.append(_Exact(exact, dim))

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        """Return the ``k`` best rows per query among those ``allowed`` (a mask over rows; None: all), equal scores by row."""
        found = [part.search(queries, k, allowed) for part in self._parts]
        rows, scores = (np.concatenate(arrays, axis=1) for arrays in zip(*found, strict=True))
        scores[rows < 0] = -np.inf
        order = np.lexsort((rows, -scores), axis=-1)[:, :k]
        return np.take_along_axis(rows, order, 1), np.take_along_axis(scores, order, 1)


class _Exact:
    """All vectors of segments without an index of their own, dead ones left out, in one flat FAISS index."""

    def __init__(self, placed: Sequence[tuple[Segment, np.ndarray | None, int]], dim: int) -> None:
        self._faiss = ann.load_faiss()
        flat = self._faiss.IndexFlatIP(dim)
        rows: list[np.ndarray] = []
        for segment, keep, first in placed:
            for block in segment.vector_blocks(keep, _BLOCK):
                flat.add(np.ascontiguousarray(block))
            size = len(segment.rowids) if keep is None else int(keep.sum())
            rows.append(np.arange(first, first + size))
        self._rows = np.concatenate(rows)
        self._flat = flat
        self._fast = on_gpu(self._faiss, flat)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        k = min(k, len(self._rows))
        if allowed is None:
            scores, places = (self._fast if k <= _GPU_HITS else self._flat).search(queries, k)
        else:
            bits = np.packbits(allowed[self._rows], bitorder="little")
            selector = self._faiss.IDSelectorBitmap(bits)  # GPU indices take none, so filters stay on the CPU
            scores, places = self._flat.search(queries, k, params=self._faiss.SearchParameters(sel=selector))
        return np.where(places >= 0, self._rows[places], -1), scores


class _Approximate:
    """One segment with its own index; what the index does not find enough of is looked for exactly."""

    def __init__(self, segment: Segment, keep: np.ndarray | None, first: int, probe: int, ef: int) -> None:
        self._faiss = ann.load_faiss()
        self._segment, self._keep, self._probe, self._ef = segment, keep, probe, ef
        self._kind = segment.record.kind
        self._index = ann.read(segment)
        self._vectors = segment.vectors()
        alive = np.ones(len(segment.rowids), bool) if keep is None else keep
        self._row_of = np.where(alive, first - 1 + np.cumsum(alive), -1)
        self._fast = self._index if self._kind == "hnsw" else on_gpu(self._faiss, self._index)

    def search(self, queries: np.ndarray, k: int, allowed: np.ndarray | None) -> Found:
        usable = self._row_of >= 0
        if allowed is not None:
            usable &= allowed[np.maximum(self._row_of, 0)]
        total = int(usable.sum())
        k = min(k, total)
        if not k:
            return np.full((len(queries), 0), -1, np.int64), np.zeros((len(queries), 0), np.float32)
        if k > total // 2 or total < _SCAN * len(usable):
            return self._scan(queries, k, usable)
        places, scores = self._walk(queries, k, None if total == len(usable) else usable)
        short = np.flatnonzero(places[:, -1] < 0)
        rows = np.where(places >= 0, self._row_of[places], -1)
        if len(short):
            rows[short], scores[short] = self._scan(queries[short], k, usable)
        return rows, scores

    def _walk(self, queries: np.ndarray, k: int, usable: np.ndarray | None) -> Found:
        selector = None if usable is None else self._faiss.IDSelectorBitmap(np.packbits(usable, bitorder="little"))
        wanted = k if self._kind == "hnsw" else min(_REFINE * k, len(self._row_of))
        parameters = ann.parameters(self._faiss, self._kind, selector, self._probe, max(self._ef, 2 * k))
        on_cpu = selector is not None or wanted > _GPU_HITS  # GPU indices take no selector
        scores, places = (self._index if on_cpu else self._fast).search(queries, wanted, params=parameters)
        if self._kind == "hnsw":
            return places, scores
        for row in range(len(queries)):
            candidates = np.sort(places[row][places[row] >= 0])
            scores[row], places[row] = -np.inf, -1
            scores[row, : len(candidates)] = self._vectors[candidates] @ queries[row]
            places[row, : len(candidates)] = candidates
        order = np.lexsort((places, -scores), axis=-1)[:, :k]
        return np.take_along_axis(places, order, 1), np.take_along_axis(scores, order, 1)

    def _scan(self, queries: np.ndarray, k: int, usable: np.ndarray) -> Found:
        """The exact answer over the usable places, block by block."""
        rows = np.full((len(queries), 0), -1, np.int64)
        scores = np.zeros((len(queries), 0), np.float32)
        places = np.flatnonzero(usable)
        for start in range(0, len(places), _BLOCK):
            part = places[start : start + _BLOCK]
            rows = np.concatenate([rows, np.broadcast_to(self._row_of[part], (len(queries), len(part)))], axis=1)
            scores = np.concatenate([scores, queries @ self._vectors[part].T], axis=1)
            best = np.lexsort((rows, -scores), axis=-1)[:, :k]
            rows, scores = np.take_along_axis(rows, best, 1), np.take_along_axis(scores, best, 1)
        return rows, scores


def on_gpu(faiss: Any, index: Any) -> Any:
    """``index`` copied to the first GPU, or itself where FAISS sees none."""
    gpus: Callable[[], int] = getattr(faiss, "get_num_gpus", lambda: 0)
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index) if gpus() > 0 else index
