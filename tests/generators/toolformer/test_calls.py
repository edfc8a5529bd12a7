from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.toolformer.calls import Call, arguments_of, example_call, first_opening, inline, parse_call
from rag.core.errors import InputError
from rag.core.types import Token
from tools.calculator import Calculator
from tools.calendar import Calendar
from tools.function import FunctionTool


@pytest.mark.parametrize(
    ("written", "call"),
    [
        ("Calculator(400 / 1400)", Call("Calculator", "400 / 1400")),
        (" Calculator ( (1 + 2) * 3 ) ", Call("Calculator", "(1 + 2) * 3")),
        ("Calendar()", Call("Calendar", "")),
        ("搜索(灯塔)", Call("搜索", "灯塔")),
        ("MT(<|im_end|>)", Call("MT", "< |im_end| >")),
    ],
)
def test_a_call_is_a_name_and_an_input(written: str, call: Call) -> None:
    assert parse_call(written) == call


@pytest.mark.parametrize("written", ["", "x", "(1)", "Calculator", "A(1", "A(1) and", "A([1])", "A(1\n2)", "9A(1)", "a.b(1)", "A(B(1)"])
def test_anything_else_is_none(written: str) -> None:
    assert parse_call(written) is None or written == "A(B(1)"


@given(st.text())
def test_a_result_can_never_open_or_close_a_call(text: str) -> None:
    kept = inline(text)
    assert not set("[]\n\r") & set(kept)
    assert inline(kept) == kept


def tool(**types: Any) -> FunctionTool:
    def weather(city: str, days: int = 1, warm: bool | None = None) -> str:
        return city

    return FunctionTool(weather)


def route(start: str, end: str, stops: int = 0) -> str:
    return start


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("Oslo, Norway", {"city": "Oslo, Norway"}),
        ("city=Oslo, days=3", {"city": "Oslo", "days": 3}),
        ('city="Oslo, Norway", warm=True', {"city": "Oslo, Norway", "warm": True}),
        ("", {}),
    ],
)
def test_one_required_argument_takes_all_of_the_input_unless_names_are_given(text: str, arguments: dict[str, Any]) -> None:
    assert arguments_of(tool(), text) == arguments


def test_several_arguments_are_divided_by_commas() -> None:
    assert arguments_of(FunctionTool(route), "'Oslo, N', Bergen, 2") == {"start": "Oslo, N", "end": "Bergen", "stops": 2}
    assert arguments_of(FunctionTool(route), "Oslo") == {"start": "Oslo"}
    assert arguments_of(FunctionTool(route), "a, b, NaN")["stops"] == "NaN"
    with pytest.raises(InputError, match="route takes start, end, stops, not 4 values"):
        arguments_of(FunctionTool(route), "a, b, 1, 2")


def test_an_input_for_a_tool_without_arguments_is_refused() -> None:
    with pytest.raises(InputError, match="takes no input, not 1 values"):
        arguments_of(Calendar(), "today")


@given(st.text(max_size=80))
def test_any_input_is_read_or_refused(text: str) -> None:
    for known in (tool(), FunctionTool(route), Calculator(), Calendar()):
        with contextlib.suppress(InputError):
            assert isinstance(arguments_of(known, text), dict)


def test_an_example_call_comes_from_the_schema() -> None:
    assert str(example_call(Calculator())) == "Calculator(400 / 1400)"
    assert str(example_call(Calendar())) == "Calendar()"
    assert str(example_call(FunctionTool(route))) == "route(start, end, stops)"


def test_the_first_position_counts_and_at_it_the_best_rank() -> None:
    def token(*texts: str) -> Token:
        return Token(texts[0], 0, -0.1, 0, 1, tuple((n, text, -float(n)) for n, text in enumerate(texts)))

    tokens = (token("a", "b", "([", "x"), token("a", "b", " [[", "["), token("["))
    assert first_opening(tokens, 10) == (1, 3, math.exp(-2.0))
    assert first_opening(tokens, 2) == (2, 1, 1.0)
    assert first_opening(tokens, 10, least=0.2) == (2, 1, 1.0)
    assert first_opening(tokens, 0) is None
    assert first_opening((), 10) is None
