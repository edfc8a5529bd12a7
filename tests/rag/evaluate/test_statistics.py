"""Intervals and tests hold what they promise on simulated data, do not depend on order, and refuse what is no number."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rag.core.errors import InputError
from rag.evaluate.statistics import EXACT_UP_TO, bootstrap_difference, bootstrap_mean, holm, permutation_test


def _scores(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(n)


def test_false_positive_rate_without_a_difference() -> None:
    rng = np.random.default_rng(20)
    below = 0
    for trial in range(1000):
        hard = rng.random(60)  # pairs share their question's difficulty, as scores of two pipelines do
        first, second = (np.round(np.clip(hard + rng.normal(0, 0.2, 60), 0, 1), 1) for _ in range(2))
        below += permutation_test(first, second, seed=trial, flips=2000) < 0.05
    assert 30 <= below <= 70


def test_false_positive_rate_of_right_or_wrong_answers() -> None:
    rng = np.random.default_rng(21)
    pairs = rng.integers(0, 2, (1000, 2, 200)).astype(float)
    below = sum(permutation_test(first, second, seed=trial, flips=1000) < 0.05 for trial, (first, second) in enumerate(pairs))
    assert 30 <= below <= 70


@pytest.mark.parametrize("kind", ["right or wrong", "skewed"])
def test_interval_covers_the_true_mean(kind: str) -> None:
    rng = np.random.default_rng(22)
    samples = (rng.random((1000, 200)) < 0.3).astype(float) if kind == "right or wrong" else rng.beta(0.5, 1.5, (1000, 200))
    true = 0.3 if kind == "right or wrong" else 0.25
    intervals = [bootstrap_mean(sample, seed=trial, resamples=1000) for trial, sample in enumerate(samples)]
    assert 930 <= sum(low <= true <= high for low, high in intervals) <= 970


def test_a_clear_difference_is_found() -> None:
    first = _scores(100, 1)
    second = first + 0.2
    low, high = bootstrap_difference(first, second)
    assert low == pytest.approx(0.2)
    assert high == pytest.approx(0.2)
    assert permutation_test(first, second) == pytest.approx(1 / 10_001)
    low, high = bootstrap_difference(first, _scores(100, 2) + 0.5)
    assert 0.3 < low < high < 0.7


def test_interval_is_close_to_the_normal_one_for_many_values() -> None:
    values = _scores(2000, 3)
    low, high = bootstrap_mean(values)
    error = values.std() / np.sqrt(values.size)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=error / 10)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=error / 10)
    narrow = bootstrap_mean(values, level=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_exact_test_counts_every_pattern_of_signs() -> None:
    first, second = [0.1, 0.9, 0.4, 0.8, 0.5], [0.3, 0.6, 0.9, 1.0, 0.5]
    differences = [b - a for a, b in zip(first, second, strict=True)]
    observed = abs(sum(differences))
    patterns = list(itertools.product([-1, 1], repeat=5))
    extreme = sum(abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= observed - 1e-12 for signs in patterns)
    assert permutation_test(first, second) == extreme / len(patterns)
    assert permutation_test([0.0] * 3, [1.0] * 3) == 2 / 8
    assert permutation_test([0.0] * EXACT_UP_TO, [1.0] * EXACT_UP_TO) == 2 / 2**EXACT_UP_TO


def test_rounding_does_not_part_equal_sums() -> None:
    rng = np.random.default_rng(12)
    for _ in range(100):
        tenths = rng.integers(-9, 10, 8)
        assert permutation_test(np.zeros(8), tenths / 10) == permutation_test(np.zeros(8), tenths)


def test_drawn_flips_agree_with_the_exact_test() -> None:
    rng = np.random.default_rng(4)
    first = rng.random(13)
    second = first + rng.normal(0.15, 0.3, 13)
    differences = second - first
    signs = np.array(list(itertools.product([-1, 1], repeat=13)))
    exact = np.mean(np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12)
    assert permutation_test(first, second) == pytest.approx(exact, abs=0.015)
    assert 0.02 < exact < 0.98


def test_pairs_that_do_not_differ_change_nothing() -> None:
    first, second = [0.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 1.0]
    assert permutation_test([*first, *([1.0] * 50)], [*second, *([1.0] * 50)]) == permutation_test(first, second) == 10 / 16


def test_the_order_of_questions_does_not_matter() -> None:
    first, second = _scores(300, 5), _scores(300, 6) + 0.03
    order = np.random.default_rng(7).permutation(300)
    assert bootstrap_mean(first) == pytest.approx(bootstrap_mean(first[order]), abs=1e-12)
    assert bootstrap_difference(first, second) == pytest.approx(bootstrap_difference(first[order], second[order]), abs=1e-12)
    assert permutation_test(first, second) == permutation_test(first[order], second[order])


def test_sides_and_scale() -> None:
    first, second = _scores(80, 8), _scores(80, 9)
    assert permutation_test(first, second) == permutation_test(second, first)
    assert permutation_test(first * 100, second * 100) == permutation_test(first, second)
    low, high = bootstrap_mean(first)
    assert bootstrap_mean(first * 100 + 3) == pytest.approx((low * 100 + 3, high * 100 + 3))


def test_the_seed_decides() -> None:
    values, others = _scores(50, 10), _scores(50, 11)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    assert permutation_test(values, others, seed=1) == permutation_test(values, others, seed=1)


def test_more_values_than_fit_one_chunk() -> None:
    values = np.tile([0.0, 1.0], 60_000)
    low, high = bootstrap_mean(values, resamples=200)
    assert 0.49 < low < 0.5 < high < 0.51


def test_degenerate_values() -> None:
    assert bootstrap_mean([0.7]) == (0.7, 0.7)
    assert bootstrap_mean([0.1] * 33) == (0.1, 0.1)
    assert bootstrap_difference([0.2], [0.5]) == pytest.approx((0.3, 0.3))
    assert permutation_test([0.2], [0.5]) == 1.0
    assert permutation_test([0.3] * 40, [0.3] * 40) == 1.0


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


@pytest.mark.parametrize("bad", [[], [0.1, float("nan")], [0.1, float("inf")], [0.1, None], ["many"], [[0.1, 0.2]]])
def test_what_is_no_row_of_numbers_is_refused(bad: list[float]) -> None:
    with pytest.raises(InputError, match="values"):
        bootstrap_mean(bad)
    with pytest.raises(InputError, match="first"):
        permutation_test(bad, [0.1, 0.2])
    with pytest.raises(InputError, match="second"):
        bootstrap_difference([0.1, 0.2], bad)


def test_nan_is_refused_with_its_place_and_what_to_do() -> None:
    with pytest.raises(InputError, match=r"values\[1\] is nan: leave out the questions"):
        bootstrap_mean([0.1, float("nan")])


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(InputError, match="same questions on both sides, not 2 and 3"):
        permutation_test([0.1, 0.2], [0.1, 0.2, 0.3])


@pytest.mark.parametrize("p_values", [[0.1, 1.2], [-0.1], [float("nan")]])
def test_what_is_no_p_value_is_refused(p_values: list[float]) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        holm(p_values)


@pytest.mark.parametrize("settings", [{"seed": -1}, {"seed": 1.5}, {"resamples": 0}, {"resamples": 10**9}, {"level": 1.0}, {"level": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        bootstrap_mean([0.1, 0.2], **settings)
