"""The corpus as it was at one commit: what a search works on from beginning to end."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rag.core.types import Filter
from retrievers import filters
from retrievers.corpus.manifest import SegmentRecord
from retrievers.corpus.merge import alive, sources_of
from retrievers.corpus.postings import Merged, merge
from retrievers.corpus.segment import Segment
from retrievers.corpus.store import Store

_FILTERS = 64
"""Compiled filters that a snapshot remembers."""


@dataclass(slots=True)
class Snapshot:
    """``rowids[r]`` (int64, ascending) is the passage in row r; rows number the live passages of all segments through."""

    generation: int
    segments: tuple[Segment, ...]
    keeps: tuple[np.ndarray | None, ...]
    """Per segment, which of its passages are alive (None: all)."""
    rowids: np.ndarray
    _allowed: dict[str, np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return len(self.rowids)

    def allowed(self, store: Store, filter: Filter | None) -> np.ndarray | None:
        """A mask over rows of the passages that meet ``filter``; None for no filter. Raises `InputError`."""
        if not filter:
            return None
        key = filters.key_of(filter)
        with self._lock:
            mask = self._allowed.get(key)
        if mask is None:
            mask = np.zeros(len(self.rowids), bool)
            found = store.select(*filters.to_sql(filter))
            places = np.searchsorted(self.rowids, found)
            inside = places < len(self.rowids)
            places, found = places[inside], found[inside]
            mask[places[self.rowids[places] == found]] = True  # rows of a later commit are not ours
            with self._lock:
                if len(self._allowed) >= _FILTERS:
                    self._allowed.pop(next(iter(self._allowed)))
                self._allowed[key] = mask
        return mask

    def postings(self) -> tuple[Merged, np.ndarray]:
        """The live term frequencies of all segments by row, and the tokens per row."""
        sources = sources_of(self.segments, self.keeps)
        lengths = [source.postings.lengths[source.rows >= 0] for source in sources]
        return merge(sources), np.concatenate(lengths) if lengths else np.empty(0, np.int32)

    def firsts(self) -> list[int]:
        """The row of each segment's first live passage."""
        sizes = [len(s.rowids) if keep is None else int(keep.sum()) for s, keep in zip(self.segments, self.keeps, strict=True)]
        return [0, *np.cumsum(sizes).tolist()][:-1]


def load_snapshot(
    folder: Path, generation: int, records: Sequence[SegmentRecord], dead: np.ndarray, known: Mapping[str, Segment]
) -> Snapshot:
    """Open the segments of one commit, taking over those that are ``known`` already. Raises `SegmentVanished` or `CorpusDamaged`."""
    segments = tuple(known.get(record.name) or Segment(folder, record) for record in records)
    keeps = tuple(alive(segment.rowids, dead) for segment in segments)
    rowids = [s.rowids if keep is None else s.rowids[keep] for s, keep in zip(segments, keeps, strict=True)]
    return Snapshot(generation, segments, keeps, np.concatenate(rowids) if rowids else np.empty(0, np.int64))
