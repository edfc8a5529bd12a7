from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.toolformer.loss import WEIGHTS, gain, likely_positions, weighted_loss

LOGPROBS = st.floats(-20, 0, allow_nan=False)


def test_the_weights_are_those_of_the_paper_and_sum_to_1() -> None:
    raw = [max(Fraction(0), 1 - Fraction(t, 5)) for t in range(10)]
    exact = [weight / sum(raw) for weight in raw]
    assert exact[:5] == [Fraction(1, 3), Fraction(4, 15), Fraction(1, 5), Fraction(2, 15), Fraction(1, 15)]
    assert pytest.approx([float(weight) for weight in exact if weight]) == WEIGHTS
    assert math.fsum(WEIGHTS) == pytest.approx(1)


@given(first=st.lists(LOGPROBS, min_size=5, max_size=5), later=st.lists(LOGPROBS), other=st.lists(LOGPROBS))
def test_the_loss_depends_only_on_the_first_five_tokens(first: list[float], later: list[float], other: list[float]) -> None:
    assert weighted_loss([*first, *later]) == weighted_loss([*first, *other]) == weighted_loss(first)


@pytest.mark.parametrize("place", range(5))
def test_each_of_the_five_tokens_counts_by_its_weight(place: int) -> None:
    assert weighted_loss([-1.0 if at == place else 0.0 for at in range(8)]) == pytest.approx(WEIGHTS[place])


def test_a_uniform_model_loses_log_v() -> None:
    assert weighted_loss([-math.log(50257)] * 9) == pytest.approx(math.log(50257))


@given(empty=st.floats(0, 20), called=st.floats(0, 20))
def test_an_empty_response_gains_nothing(empty: float, called: float) -> None:
    assert gain(called, called, empty) <= 0


def test_the_gain_is_measured_against_the_better_of_no_call_and_the_call_alone() -> None:
    assert gain(1.0, 2.5, 3.0) == 1.5
    assert gain(1.0, 3.0, 2.0) == 1.0


PROBABILITIES = st.lists(st.floats(0, 1), max_size=30)


@given(PROBABILITIES, st.floats(0, 1), st.floats(0, 1), st.integers(1, 8))
def test_positions_are_nested_in_tau_s_and_at_most_k(probabilities: list[float], one: float, other: float, k: int) -> None:
    low, high = sorted((one, other))
    wide, narrow = likely_positions(probabilities, low, k), likely_positions(probabilities, high, k)
    assert set(narrow) <= set(wide)
    assert len(wide) <= k
    assert wide == sorted(wide)
    assert all(probabilities[index] > low for index in wide)
    left_out = [p for index, p in enumerate(probabilities) if p > low and index not in wide]
    assert not left_out or max(left_out) <= min(probabilities[index] for index in wide)
