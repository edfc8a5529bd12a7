from __future__ import annotations

import importlib.util
import math
import sys
from collections.abc import Sequence

import pytest

from adapters.lorahub.search import Cobyla, Nevergrad, make_search
from rag.core.errors import AdapterError, InputError, MissingDependency

TARGET = [0.8, -0.4, 0.3, 1.1]


def bowl(weights: Sequence[float]) -> float:
    return sum((weight - target) ** 2 for weight, target in zip(weights, TARGET, strict=True))


def test_it_finds_the_bottom_of_a_bowl() -> None:
    found = Cobyla().minimise(bowl, 4)
    assert found.values[0] == bowl([0] * 4)
    assert found.best < 0.05
    assert bowl(found.weights) == found.best == min(found.values)
    assert len(found.values) == 40


def test_the_first_steps_go_along_the_coordinates() -> None:
    seen: list[Sequence[float]] = []
    Cobyla(evaluations=3).minimise(lambda weights: seen.append(weights) or bowl(weights), 4)  # type: ignore[func-returns-value]
    assert seen == [(0, 0, 0, 0), (0.5, 0, 0, 0), (0.5, 0.5, 0, 0)]  # a step that helped is kept


def test_nothing_leaves_the_bounds() -> None:
    seen: list[Sequence[float]] = []

    def far(weights: Sequence[float]) -> float:
        seen.append(weights)
        return sum((weight - 9) ** 2 for weight in weights)

    found = Cobyla(evaluations=60).minimise(far, 3)
    assert max(abs(weight) for weights in seen for weight in weights) <= 1.5
    assert found.weights == pytest.approx([1.5] * 3, abs=1e-2)


def test_the_best_is_never_above_the_start() -> None:
    found = Cobyla().minimise(lambda weights: sum(abs(weight) for weight in weights), 5)
    assert (found.best, found.weights) == (0.0, (0.0,) * 5)
    assert max(found.values) > 0


def test_progress_is_told_after_each_evaluation() -> None:
    told: list[tuple[int, float, float]] = []
    found = Cobyla(evaluations=12).minimise(bowl, 4, lambda *seen: told.append(seen))
    assert [number for number, _, _ in told] == list(range(12))
    assert tuple(value for _, value, _ in told) == found.values
    assert [best for _, _, best in told] == [min(found.values[: number + 1]) for number in range(12)]


def test_it_is_repeatable() -> None:
    assert Cobyla().minimise(bowl, 4) == Cobyla().minimise(bowl, 4)


@pytest.mark.parametrize("at", [0, 3])
def test_a_loss_that_is_no_number_is_an_error(at: int) -> None:
    count = iter(range(100))
    with pytest.raises(AdapterError, match=f"not a number at evaluation {at}"):
        Cobyla().minimise(lambda weights: math.nan if next(count) == at else bowl(weights), 4)


def test_nevergrad_is_named_with_its_extra_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nevergrad", None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[lorahub\]"):
        Nevergrad().minimise(bowl, 4)


@pytest.mark.skipif(importlib.util.find_spec("nevergrad") is None, reason="nevergrad is optional")
def test_nevergrad_finds_it_too() -> None:
    found = Nevergrad(seed=3).minimise(bowl, 4)
    assert found.values[0] == bowl([0] * 4)
    assert found.best < 0.05
    assert len(found.values) == 40
    assert found == Nevergrad(seed=3).minimise(bowl, 4)


def test_searches_by_name() -> None:
    assert make_search("cobyla", 9, 1.0, 0.25, 0) == Cobyla(9, 1.0, 0.25)
    assert make_search("nevergrad", 9, 1.0, 0.25, 7) == Nevergrad(9, 1.0, 7)
    with pytest.raises(InputError, match="'cobyla' or 'nevergrad'"):
        make_search("adam", 9, 1.0, 0.25, 0)
