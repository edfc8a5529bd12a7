from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from generators.toolformer.annotated import AnnotatedCall, example_pair, merge

TEXT = "Of 1400, 400 passed [see 2]."


def call(position: int, name: str = "A", result: str = "r", gain: float = 1.0) -> AnnotatedCall:
    return AnnotatedCall(position, f"{name}(x)", result, 0.5, gain)


def test_calls_of_all_tools_stand_in_the_text_at_their_positions() -> None:
    merged = merge(TEXT, [call(12, "B"), call(3, "A"), call(12, "A")])
    assert merged.text == "Of  [A(x) -> r]1400, 400 [B(x) -> r] [A(x) -> r] passed [see 2]."
    assert [merged.text[start:end] for start, end in merged.spans] == [" [A(x) -> r]", " [B(x) -> r]", " [A(x) -> r]"]


def test_of_several_calls_of_one_tool_at_one_place_that_of_the_largest_gain_stays() -> None:
    assert merge("ab", [call(1, result="worse", gain=1.0), call(1, result="better", gain=2.0)]).text == "a [A(x) -> better]b"


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(0, 40), st.sampled_from("AB"), st.text(max_size=8)), max_size=6))
def test_removing_all_call_spans_gives_the_text_back_byte_for_byte(text: str, placed: list[tuple[int, str, str]]) -> None:
    calls = [call(min(position, len(text)), name, result) for position, name, result in placed]
    merged = merge(text, calls)
    assert merged.without_calls() == text
    assert len(merged.spans) == len({(c.position, c.call) for c in calls})


def test_an_example_is_shown_without_its_calls_and_without_their_results() -> None:
    assert example_pair("It is [A(1 + 1) -> 2] 2 [B() -> x], or [so].") == ("It is 2 , or [so].", "It is [A(1 + 1)] 2 [B()], or [so].")
