from __future__ import annotations

import contextlib
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.core.errors import InputError
from rag.core.sync import run_sync
from tools.calculator import Calculator, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("27 + 4 * 2", "35"),
        ("400 / 1400", "0.29"),
        ("(27 + 4) * 2", "62"),
        ("-3 - -4", "1"),
        ("2 * -3", "-6"),
        ("10 - 4 - 3", "3"),
        ("100 / 10 / 5", "2"),
        ("0.1 + 0.2", "0.3"),
        ("0.125 * 1", "0.13"),
        ("-0.125", "-0.13"),
        ("-0.001", "0"),
        ("1,250 / 5", "250"),
        ("1 / 3 * 3", "1"),
        (".5 + .25", "0.75"),
        ("（3 × 4）÷ 5", "2.4"),
        ("100", "100"),
    ],
)
def test_the_four_operations_rounded_to_two_decimals(expression: str, value: str) -> None:
    assert run_sync(Calculator().acall({"expression": expression})) == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("1/0", "division by zero"),
        ("1 / (2 - 2)", "division by zero"),
        ("9**9**9", r"'\*\*' is not arithmetic"),
        ("7 // 2", "'//' is not arithmetic"),
        ("5 % 2", "'%' is not arithmetic"),
        ("__import__('os')", "is not arithmetic"),
        ("x + 1", "'x' is not arithmetic"),
        ("1.real", "is not arithmetic"),
        ("1e9", "is not arithmetic"),
        ("٣ + 1", "is not arithmetic"),
        ("", "empty"),
        ("   ", "empty"),
        ("1 +", "a number is missing at the end"),
        ("* 1", r"a number is missing before '\*'"),
        ("1 2", "'2' is not expected"),
        ("(1", r"'\)' is missing"),
        ("1)", r"'\)' is not expected"),
        ("()", r"a number is missing before '\)'"),
        ("(" * 41 + "1" + ")" * 41, "deeper than 40"),
        ("9" * 201, "201 characters; at most 200"),
        ("1" + "0" * 16, "beyond 10"),
        ("1 + 1\n; import os", "is not arithmetic"),
    ],
)
def test_anything_else_is_an_error_that_says_why(expression: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calculate(expression)


def test_many_signs_and_parentheses_within_the_bounds_are_fine() -> None:
    assert calculate("-" * 199 + "1") == "-1"
    assert calculate("(" * 40 + "1" + ")" * 40) == "1"


@given(st.fractions(min_value=-1000, max_value=1000, max_denominator=999))
def test_the_result_is_never_more_than_half_a_hundredth_off(value: Fraction) -> None:
    assert abs(Fraction(calculate(f"({value.numerator}) / {value.denominator}")) - value) <= Fraction(1, 200)


@given(st.text(max_size=60))
def test_no_text_does_anything_but_give_a_number_or_an_input_error(text: str) -> None:
    with contextlib.suppress(InputError):
        Fraction(calculate(text))
