from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from generators.models.checks import check_text, checked, fitted, messages_json
from rag.core.errors import InputError, PromptTooLong
from rag.core.types import Message, Sampling


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ("", "empty"),
        ([], "empty list"),
        (3, "int"),
        (None, "NoneType"),
        ("a\ud800b", "surrogate pair at character 1"),
        ([{"role": "user", "content": "x"}], "rag.Message"),
        ([Message("tool", "x")], "'tool'"),  # type: ignore[arg-type]
        ([Message("user", "\udc00")], "message 1"),
        ([Message("user", "x"), Message("user", None)], "NoneType|message 2"),  # type: ignore[arg-type]
    ],
)
def test_bad_prompts(prompt: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        checked(prompt)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("max_tokens", v) for v in (0, -1, 1.5, "10", None, True, float("nan"))],
        *[("temperature", v) for v in (-0.1, 1e308, float("nan"), float("inf"), "1", None)],
        *[("top_p", v) for v in (0, -1, 1.01, float("nan"), "1", None)],
        *[("presence_penalty", v) for v in (-2.01, 2.01, float("nan"), "1", None, True)],
        *[("frequency_penalty", v) for v in (-2.01, 2.01, float("inf"), "1", None)],
        *[("logprobs", v) for v in (-1, 21, 1.0, "3", True)],
        *[("seed", v) for v in (-1, 2**63, 1.0, "3")],
        *[("stop", v) for v in ("abc", ("",), (3,), ("\ud800",))],
        *[("logit_bias", v) for v in ({-1: 1.0}, {"5": 1.0}, {5: 101}, {5: float("nan")}, {5: "1"})],
    ],
)
def test_bad_sampling_is_named(field: str, value: Any) -> None:
    with pytest.raises(InputError, match="stop string" if field == "stop" and value != "abc" else field):
        checked("a", replace(Sampling(), **{field: value}))


def test_good_values_pass() -> None:
    checked("a", Sampling(1, 100, 1e-9, ("x",), 2**63 - 1, 20, {0: -100.0, 5: 100}))
    checked("a", Sampling(presence_penalty=-2, frequency_penalty=2.0))
    checked([Message("system", ""), Message("user", "好\x00 ‮")], Sampling(2**31))


def test_text_of_the_wrong_type() -> None:
    with pytest.raises(InputError, match="the continuation is a string, not bytes"):
        check_text(b"x", "the continuation")


def test_max_tokens_is_cut_to_what_is_left() -> None:
    assert fitted(Sampling(max_tokens=5), 90, 100, "m").max_tokens == 5
    assert fitted(Sampling(max_tokens=50), 90, 100, "m").max_tokens == 10
    assert fitted(Sampling(max_tokens=50), 99, 100, "m").max_tokens == 1


def test_a_prompt_that_fills_the_window_is_too_long() -> None:
    with pytest.raises(PromptTooLong, match=r"takes 100 tokens.*window of m holds 100"):
        fitted(Sampling(), 100, 100, "m")


def test_messages_json() -> None:
    assert messages_json([Message("user", "hi")]) == [{"role": "user", "content": "hi"}]
