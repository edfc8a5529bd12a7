from __future__ import annotations

from typing import Any

import pytest

from rag.serve.errors import RequestError
from rag.serve.openai_types import ChatRequest, CompletionRequest, Refused, not_followed, refuse_unsupported

CHAT: dict[str, Any] = {"model": "graft", "messages": [{"role": "user", "content": "x"}]}
PROMPT: dict[str, Any] = {"model": "graft", "prompt": "x"}


@pytest.mark.parametrize(("value", "allowed"), [(None, True), (1, True), (True, False), (1.0, False), (0, False), ("1", False)])
def test_only_the_harmless_value_itself_is_taken(value: Any, allowed: bool) -> None:
    if allowed:
        Refused(1).check("n", value)
    else:
        with pytest.raises(RequestError, match=r"^n: only 1 is supported"):
            Refused(1).check("n", value)


def test_a_field_without_a_harmless_value_is_to_be_left_out() -> None:
    Refused().check("audio", None)
    for value in (0, False, "", [], {}):
        with pytest.raises(RequestError, match=r"^audio: not supported") as caught:
            Refused().check("audio", value)
        assert (caught.value.status, caught.value.code) == (400, "unsupported_parameter")


@pytest.mark.parametrize(
    "harmless",
    [
        {"response_format": {"type": "text"}},
        {"modalities": ["text"]},
        {"logprobs": False},
        {"tools": []},
        {"tool_choice": "none"},
        {"n": 1},
    ],
)
def test_a_chat_may_ask_for_what_is_done_anyway(harmless: dict[str, Any]) -> None:
    refuse_unsupported(ChatRequest.model_validate({**CHAT, **harmless}))


@pytest.mark.parametrize(
    "refused",
    [{"response_format": {"type": "json_object"}}, {"modalities": ["audio"]}, {"logprobs": 0}, {"tools": [{}]}, {"tool_choice": "auto"}],
)
def test_a_chat_may_not_ask_for_what_is_never_done(refused: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(refused))):
        refuse_unsupported(ChatRequest.model_validate({**CHAT, **refused}))


def test_every_other_field_of_openai_is_followed_or_named() -> None:
    """A field is used, marked as refused or marked as not followed."""
    used = {"model", "messages", "prompt", "stream", "stream_options", "graft"}
    for kind in (ChatRequest, CompletionRequest):
        for name, field in kind.model_fields.items():
            marks = {type(mark).__name__ for mark in field.metadata} & {"Refused", "NotFollowed"}
            assert len(marks) == (0 if name in used else 1), name


def test_what_is_not_followed_is_named_in_order() -> None:
    assert not_followed(CompletionRequest.model_validate(PROMPT)) == []
    asked = CompletionRequest.model_validate({**PROMPT, "user": "ann", "max_tokens": 5, "seed": 0})
    assert not_followed(asked, "because") == ["not followed: max_tokens, seed, user (because)"]
