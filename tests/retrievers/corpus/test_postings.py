from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag.core.errors import InputError
from retrievers.corpus import postings
from retrievers.corpus.manifest import SegmentRecord
from retrievers.corpus.merge import CLOSED, COMPACTED, LARGEST, plan, plan_all
from retrievers.corpus.postings import Postings, Source, count_terms, merge

TOKENS = st.lists(st.sampled_from(["a", "b", "c", "d", "é", "机"]), max_size=8)


def table(counted: Postings) -> list[Counter[str]]:
    """What each row holds, read back from the columns."""
    rows = [Counter[str]() for _ in counted.lengths]
    for t, term in enumerate(counted.terms):
        for place in range(counted.indptr[t], counted.indptr[t + 1]):
            rows[counted.docs[place]][term] += int(counted.counts[place])
    return rows


@given(st.lists(TOKENS, max_size=6))
def test_counting_loses_nothing(texts: list[list[str]]) -> None:
    counted = count_terms(texts)
    assert table(counted) == [Counter(text) for text in texts]
    assert counted.terms == sorted(set(counted.terms))
    assert counted.lengths.tolist() == [len(text) for text in texts]


@settings(max_examples=150)
@given(
    st.data(),
    st.lists(st.lists(st.tuples(TOKENS, st.booleans()), min_size=1, max_size=5), min_size=1, max_size=4),
    st.sampled_from([1, 3, 1000]),
)
def test_merging_equals_counting_what_is_alive(data: st.DataObject, segments: list[list[tuple[list[str], bool]]], block: int) -> None:
    sources, first = [], 0
    for segment in segments:
        keep = np.array([flag for _, flag in segment])
        rows = np.where(keep, first - 1 + np.cumsum(keep), -1).astype(np.int32)
        first += int(keep.sum())
        sources.append(Source(count_terms([tokens for tokens, _ in segment]), rows, not keep.all()))
    alive = [tokens for segment in segments for tokens, flag in segment if flag]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postings, "_BLOCK", block)
        merged = merge(sources)
        blocks = list(merged.blocks)
    expected = count_terms(alive)
    assert merged.terms == expected.terms
    assert merged.indptr.tolist() == expected.indptr.tolist()
    assert [place for start, stop, _, _ in blocks for place in range(start, stop)] == list(range(len(merged.terms)))
    assert [d for _, _, docs, _ in blocks for d in docs.tolist()] == expected.docs.tolist()
    assert [c for _, _, _, counts in blocks for c in counts.tolist()] == expected.counts.tolist()


def test_large_counts_get_a_wider_type() -> None:
    assert count_terms([["a"] * 65_535]).counts.dtype == np.uint16
    wide = count_terms([["a"] * 65_536, ["b"]])
    assert wide.counts.tolist() == [65_536, 1]


@pytest.mark.parametrize("token", ["", "a\nb"])
def test_tokens_that_the_vocabulary_file_cannot_hold(token: str) -> None:
    with pytest.raises(InputError, match="line break"):
        count_terms([["fine", token]])


def records(*sizes: int, kind: str = "flat") -> list[SegmentRecord]:
    return [SegmentRecord(str(i), size, 10**7 * i, 10**7 * i + size - 1, kind, {}) for i, size in enumerate(sizes)]


def names(groups: list[list[SegmentRecord]]) -> list[str]:
    return ["".join(record.name for record in group) for group in groups]


def test_eight_of_a_size_become_one() -> None:
    assert plan(records(*[100] * 7)) == []
    assert names(plan(records(*[100] * 8))) == ["01234567"]
    assert names(plan(records(50_000, *[100] * 8))) == ["12345678"]
    assert names(plan(records(4000, 2, 100, 100, 100, 100, 1, 100, 100, 100, 100))) == ["12345678910"]


def test_large_or_indexed_segments_are_left_alone() -> None:
    assert plan(records(*[CLOSED] * 20)) == []
    assert plan(records(*[5000] * 20, kind="hnsw")) == []


def test_a_merge_is_never_larger_than_the_limit() -> None:
    groups = plan(records(*[16_000] * 9))
    assert [sum(record.passages for record in group) for group in groups] == [64_000, 64_000]
    assert LARGEST >= 64_000


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=300))
@settings(max_examples=30)
def test_the_number_of_segments_stays_small_and_the_work_bounded(adds: list[int]) -> None:
    sizes: list[int] = []
    written = 0
    for size in adds:
        sizes.append(size)
        while groups := plan(records(*sizes)):
            for group in reversed(groups):
                start = int(group[0].name)
                total = sum(record.passages for record in group)
                written += total
                sizes[start : start + len(group)] = [total]
    assert sum(sizes) == sum(adds)
    assert len(sizes) <= 40 + sum(adds) // CLOSED
    assert written <= 8 * sum(adds)


def test_compaction_takes_everything() -> None:
    assert names(plan_all(records(10, 20, 30))) == ["012"]
    assert names(plan_all(records(COMPACTED, 5))) == ["0", "1"]
