"""Passages by row id, kept in memory up to a bound, and the hits made of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import repeat

import numpy as np

from rag.core.errors import CorpusError
from rag.core.types import Hit, Passage

_PASSAGES = 50_000
_CHARACTERS = 32_000_000
"""Either bound of one generation of the cache; it keeps two."""


class PassagesGone(CorpusError):
    """A passage of the snapshot was deleted by a later commit: search again on a fresh one."""


class PassageCache:
    """Two generations: what is used moves to the young one, and when that is full the old one is dropped.

    This keeps roughly the most recently used passages at the cost of one dictionary lookup. Row ids are never reused, so an entry never
    goes stale.
    """

    def __init__(self, fetch: Callable[[Sequence[int]], list[tuple[int, Passage]]]) -> None:
        self._fetch = fetch
        self._lock = threading.Lock()
        self._young: dict[int, Passage] = {}
        self._old: dict[int, Passage] = {}
        self._characters = 0

    def get(self, rowids: list[int]) -> list[Passage]:
        """The passages of ``rowids``, in order. Raises `PassagesGone`."""
        young = self._young
        try:
            return list(map(young.__getitem__, rowids))
        except KeyError:
            pass
        with self._lock:
            found = self._load(set(rowids))
        try:
            return list(map(found.__getitem__, rowids))
        except KeyError as error:
            raise PassagesGone(f"passage {error.args[0]}") from None

    def _load(self, wanted: set[int]) -> dict[int, Passage]:
        young, old = self._young, self._old
        new = {rowid: old[rowid] for rowid in wanted if rowid not in young and rowid in old}
        missing = [rowid for rowid in wanted if rowid not in young and rowid not in new]
        if missing:
            new.update(self._fetch(sorted(missing)))
        size = sum(len(passage.text) for passage in new.values())
        if young and (len(young) + len(new) > _PASSAGES or self._characters + size > _CHARACTERS):
            found = {**{rowid: young[rowid] for rowid in wanted if rowid in young}, **new}
            self._old, self._young, self._characters = young, new, size
            return found
        young.update(new)
        self._characters += size
        return young


def make_hits(passages: list[Passage], scores: list[float], sizes: Sequence[int], retriever: str, corpus: str) -> list[list[Hit]]:
    """Cut flat, ranked ``passages`` into one list of hits per query; ``sizes`` holds their lengths."""
    longest = max(sizes, default=0)
    ranks = range(1, longest + 1)
    hits: list[list[Hit]] = []
    start = 0
    for size in sizes:
        stop = start + size
        hits.append(list(map(Hit, passages[start:stop], scores[start:stop], ranks, repeat(retriever), repeat(corpus))))
        start = stop
    return hits


def flatten(rowids: np.ndarray, scores: np.ndarray, valid: np.ndarray) -> tuple[list[int], list[float], list[int]]:
    """The valid cells of two [queries, k] arrays as flat lists, and how many each query has."""
    return rowids[valid].tolist(), scores[valid].tolist(), valid.sum(axis=1).tolist()
