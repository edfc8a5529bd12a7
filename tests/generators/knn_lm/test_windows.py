"""Each token but the first is predicted once, from enough before it."""

from __future__ import annotations

import pytest

from generators.knn_lm.windows import Window, Windows
from rag.core.errors import InputError


@pytest.mark.parametrize("length", [2, 7, 8, 9, 13, 14, 100])
@pytest.mark.parametrize(("size", "stride"), [(8, 5), (8, 7), (8, 1), (2, 1)])
def test_each_token_is_predicted_once(length: int, size: int, stride: int) -> None:
    found = list(Windows(size, stride).of(length))
    assert [at for window in found for at in range(window.first, window.end)] == list(range(1, length))
    for window in found:
        assert window.end - window.begin <= size
        assert window.first - window.begin >= (1 if window.begin == 0 else size - stride)
        assert window.predicted > 0


def test_where_they_begin() -> None:
    assert list(Windows(6, 4).of(12)) == [Window(0, 6, 1), Window(4, 10, 6), Window(8, 12, 10)]


@pytest.mark.parametrize("length", [0, 1])
def test_nothing_to_predict(length: int) -> None:
    assert list(Windows(6, 4).of(length)) == []


@pytest.mark.parametrize(("size", "stride"), [(8, 8), (8, 0), (8, -1), (1, 1), (4, 9)])
def test_a_stride_out_of_range(size: int, stride: int) -> None:
    with pytest.raises(InputError, match="1 ≤ stride < size"):
        Windows(size, stride)
