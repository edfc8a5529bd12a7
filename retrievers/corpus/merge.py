"""Which segments to merge, and how: many small ones become a large one without their vectors ever being in memory together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from retrievers.corpus.manifest import SegmentRecord
from retrievers.corpus.postings import Merged, Source, merge
from retrievers.corpus.segment import Columns, Content, Segment

FAN = 8
"""So many segments of one size class are merged, and a class is so many times larger than the one below."""
CLOSED = 32_768
"""Passages from which an automatic merge leaves a segment alone."""
LARGEST = 65_536
"""Passages in the result of an automatic merge, at most."""
COMPACTED = 1 << 20
"""Passages in a segment made by `Corpus.compact`, at most."""


def plan(records: Sequence[SegmentRecord]) -> list[list[SegmentRecord]]:
    """Groups of neighbouring segments that should become one each.

    Only neighbours are merged, so that the row ids of a segment stay a range of their own. A run of open segments of class c and below is
    due when it has `FAN` of class c: every passage is rewritten a number of times logarithmic in `CLOSED`.
    """
    for level in range(_level(CLOSED) + 1):
        run: list[SegmentRecord] = []
        for record in [*records, None]:
            if record is not None and not _closed(record) and _level(record.passages) <= level:
                run.append(record)
                continue
            if sum(_level(member.passages) == level for member in run) >= FAN:
                return _groups(run, LARGEST)
            run = []
    return []


def plan_all(records: Sequence[SegmentRecord]) -> list[list[SegmentRecord]]:
    """Groups for a compaction: everything, in the fewest segments."""
    return _groups(list(records), COMPACTED, singles=True)


def merged_content(segments: Sequence[Segment], dead: np.ndarray, dim: int, index: Callable[[Path], str] | None = None) -> Content | None:
    """The live passages of ``segments`` (in row order) as the content of a new one; None if none is alive."""
    keeps = [alive(segment.rowids, dead) for segment in segments]
    rowids = np.concatenate([s.rowids if keep is None else s.rowids[keep] for s, keep in zip(segments, keeps, strict=True)])
    if not len(rowids):
        return None
    sources = sources_of(segments, keeps)
    merged = merge(sources)
    lengths = np.concatenate([s.postings.lengths[s.rows >= 0] for s in sources])
    dtype = "<u4" if any(s.postings.counts.dtype.itemsize > 2 for s in sources) else "<u2"
    columns = Columns(merged.terms, merged.indptr, lengths, dtype, _pairs(merged))
    vectors = _vectors(segments, keeps) if all(s.record.kind != "none" for s in segments) else None
    return Content(rowids, dim, vectors, columns, index)


def sources_of(segments: Sequence[Segment], keeps: Sequence[np.ndarray | None]) -> list[Source]:
    """The postings of ``segments`` with their rows numbered through over the live passages."""
    sources: list[Source] = []
    first = 0
    for segment, keep in zip(segments, keeps, strict=True):
        if keep is None:
            rows = np.arange(first, first + len(segment.rowids), dtype=np.int32)
        else:
            rows = np.where(keep, first - 1 + np.cumsum(keep), -1).astype(np.int32)
        first += len(rows) if keep is None else int(keep.sum())
        sources.append(Source(segment.postings(), rows, keep is not None))
    return sources


def alive(rowids: np.ndarray, dead: np.ndarray) -> np.ndarray | None:
    """A mask over ``rowids`` of those not in ``dead`` (both ascending), or None if none of them is dead."""
    low, high = np.searchsorted(dead, [rowids[0], rowids[-1] + 1])
    if low == high:
        return None
    mask = np.ones(len(rowids), bool)
    mask[np.searchsorted(rowids, dead[low:high])] = False
    return mask


def _level(passages: int) -> int:
    return (max(passages, 1).bit_length() - 1) // 3  # log base FAN


def _closed(record: SegmentRecord) -> bool:
    return record.passages >= CLOSED or record.kind not in ("flat", "none")


def _groups(run: list[SegmentRecord], limit: int, singles: bool = False) -> list[list[SegmentRecord]]:
    groups: list[list[SegmentRecord]] = []
    for record in run:
        if groups and sum(member.passages for member in groups[-1]) + record.passages <= limit:
            groups[-1].append(record)
        else:
            groups.append([record])
    return [group for group in groups if singles or len(group) > 1]


def _pairs(merged: Merged) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for _, _, docs, counts in merged.blocks:
        yield docs, counts


def _vectors(segments: Sequence[Segment], keeps: Sequence[np.ndarray | None]) -> Iterator[np.ndarray]:
    for segment, keep in zip(segments, keeps, strict=True):
        yield from segment.vector_blocks(keep)
