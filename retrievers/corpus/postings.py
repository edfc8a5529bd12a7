"""Raw term frequencies, term by term: what a segment keeps of its words, and how those of many segments become one.

The layout is a sparse matrix in compressed columns: column t holds the rows (passages) in which term t occurs and how often. Terms are
sorted by code point, so that merging walks all sources in step and holds only a block of columns at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rag.core.errors import InputError

_BLOCK = 1 << 21
"""Postings per block while merging: about 50 MB of temporary arrays."""


@dataclass(frozen=True, slots=True)
class Postings:
    """``docs[indptr[t]:indptr[t + 1]]``: rows with ``terms[t]`` (int32, ascending); ``counts``: how often; ``lengths``: tokens per row."""

    terms: list[str]
    indptr: np.ndarray
    docs: np.ndarray
    counts: np.ndarray
    lengths: np.ndarray


@dataclass(frozen=True, slots=True)
class Source:
    """Postings of one segment. ``rows[local]`` is the row in the merged matrix, -1 for a dead passage; ascending otherwise."""

    postings: Postings
    rows: np.ndarray
    dead: bool


@dataclass(frozen=True, slots=True)
class Merged:
    """The live postings of all sources: ``terms`` that still occur, ``indptr`` over them, and the columns block by block."""

    terms: list[str]
    indptr: np.ndarray
    blocks: Iterator[tuple[int, int, np.ndarray, np.ndarray]]
    """(first term, term after the last, docs int32, counts), in order."""


def count_terms(token_lists: Sequence[Sequence[str]]) -> Postings:
    """Build the postings of a batch of tokenised passages."""
    ids: dict[str, int] = {}
    lengths = np.fromiter((len(tokens) for tokens in token_lists), np.int32, len(token_lists))
    flat = np.fromiter((ids.setdefault(token, len(ids)) for tokens in token_lists for token in tokens), np.int64, int(lengths.sum()))
    terms = sorted(ids)
    if any("\n" in term or not term for term in terms):
        raise InputError("the analyzer made a token that is empty or holds a line break; tokens may hold neither")
    order = np.empty(len(terms), np.int64)
    order[np.fromiter((ids[term] for term in terms), np.int64, len(terms))] = np.arange(len(terms))
    docs = np.repeat(np.arange(len(token_lists), dtype=np.int64), lengths)
    keys, counts = np.unique((order[flat] << 32) | docs, return_counts=True)
    indptr = np.zeros(len(terms) + 1, np.int64)
    np.cumsum(np.bincount(keys >> 32, minlength=len(terms)), out=indptr[1:])
    return Postings(terms, indptr, (keys & 0xFFFFFFFF).astype(np.int32), narrow(counts), lengths)


def narrow(counts: np.ndarray) -> np.ndarray:
    """Term counts as uint16 where they fit, else uint32."""
    return counts.astype(np.uint16 if not len(counts) or counts.max() <= 0xFFFF else np.uint32)


def merge(sources: Sequence[Source]) -> Merged:
    """Put the live postings of ``sources`` into one matrix. Sources come in row order, so rows ascend within each column."""
    union = sorted(set().union(*(source.postings.terms for source in sources)))
    position = {term: i for i, term in enumerate(union)}
    columns = [np.fromiter((position[t] for t in s.postings.terms), np.int64, len(s.postings.terms)) for s in sources]
    frequency = np.zeros(len(union), np.int64)
    for source, column in zip(sources, columns, strict=True):
        frequency[column] += _live_counts(source)
    kept = frequency > 0
    final = np.cumsum(kept) - 1  # union position -> final position, for the terms that are kept
    indptr = np.zeros(int(kept.sum()) + 1, np.int64)
    np.cumsum(frequency[kept], out=indptr[1:])
    columns = [np.where(kept[column], final[column], -1) for column in columns]
    terms = union if kept.all() else [term for term, keep in zip(union, kept.tolist(), strict=True) if keep]
    return Merged(terms, indptr, _blocks(sources, columns, indptr))


def _blocks(sources: Sequence[Source], columns: list[np.ndarray], indptr: np.ndarray) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    # A term that died everywhere keeps a column of -1; carrying the last live column forward keeps each list ascending for searchsorted.
    ordered = [np.maximum.accumulate(column) if len(column) else column for column in columns]
    cuts = list(ranges(indptr, _BLOCK))
    for start, stop in cuts:
        size = int(indptr[stop] - indptr[start])
        docs, counts = np.empty(size, np.int32), np.empty(size, np.uint32)
        filled = indptr[start:stop] - indptr[start]
        for source, column, rising in zip(sources, columns, ordered, strict=True):
            low, high = np.searchsorted(rising, [start, stop])
            _scatter(source, column[low:high] - start, int(low), docs, counts, filled)
        yield start, stop, docs, counts


def _scatter(source: Source, column: np.ndarray, low: int, docs: np.ndarray, counts: np.ndarray, filled: np.ndarray) -> None:
    """Copy local columns low, low + 1, … behind what earlier sources put there; ``filled`` is the next free place of each column."""
    if not len(column):
        return
    indptr = np.asarray(source.postings.indptr[low : low + len(column) + 1])
    rows = source.rows[source.postings.docs[indptr[0] : indptr[-1]]]
    values = np.asarray(source.postings.counts[indptr[0] : indptr[-1]])
    sizes = np.diff(indptr)
    if source.dead:
        alive = rows >= 0
        sizes = _sums(alive, indptr - indptr[0])
        rows, values = rows[alive], values[alive]
    used = sizes > 0
    column, sizes = column[used], sizes[used]
    begins = np.cumsum(sizes) - sizes
    places = np.arange(len(rows)) + np.repeat(filled[column] - begins, sizes)
    docs[places] = rows
    counts[places] = values
    filled[column] += sizes


def _live_counts(source: Source) -> np.ndarray:
    """Live passages per local term."""
    indptr = np.asarray(source.postings.indptr)
    if not source.dead:
        return np.diff(indptr)
    counts = np.zeros(len(indptr) - 1, np.int64)
    for start, stop in ranges(indptr, _BLOCK):
        alive = source.rows[source.postings.docs[indptr[start] : indptr[stop]]] >= 0
        counts[start:stop] = _sums(alive, indptr[start : stop + 1] - indptr[start])
    return counts


def _sums(flags: np.ndarray, indptr: np.ndarray) -> np.ndarray:
    total = np.zeros(len(flags) + 1, np.int64)
    np.cumsum(flags, out=total[1:])
    return np.asarray(total[indptr[1:]] - total[indptr[:-1]])


def ranges(indptr: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Cut columns into runs of about ``size`` postings, at least one column each."""
    start, columns = 0, len(indptr) - 1
    while start < columns:
        stop = max(start + 1, int(np.searchsorted(indptr, indptr[start] + size, side="right")) - 1)
        yield start, stop
        start = stop
