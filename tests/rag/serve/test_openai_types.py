from __future__ import annotations

from typing import Any

import pytest

from generators.models.checks import checked
from rag.core.types import Sampling, SamplingRequest
from rag.serve.errors import RequestError
from rag.serve.openai_types import ChatRequest, CompletionRequest, Refused, not_followed, refuse_unsupported, sampling_of

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
    """A field is used, or marked as refused, as not followed or as one of sampling."""
    used = {"model", "messages", "prompt", "stream", "stream_options", "graft"}
    for kind in (ChatRequest, CompletionRequest):
        for name, field in kind.model_fields.items():
            marks = {type(mark).__name__ for mark in field.metadata} & {"Refused", "NotFollowed", "Sampled"}
            assert len(marks) == (0 if name in used else 1), name


def test_what_is_not_followed_is_named_in_order() -> None:
    assert not_followed(CompletionRequest.model_validate(PROMPT)) == []
    asked = CompletionRequest.model_validate({**PROMPT, "user": "ann", "max_tokens": 5, "seed": 0})
    assert not_followed(asked, "because") == ["not followed: max_tokens, seed, user (because)"]
    assert not_followed(asked, "because", sampled=True) == ["not followed: user (because)"]


def test_what_is_asked_of_sampling() -> None:
    assert sampling_of(ChatRequest.model_validate({**CHAT, "user": "ann"})) is None
    assert sampling_of(ChatRequest.model_validate({**CHAT, "temperature": 0, "top_p": 0.5})) == SamplingRequest(temperature=0, top_p=0.5)
    asked = {"max_tokens": 7, "seed": 3, "presence_penalty": 0.0, "frequency_penalty": -2}
    for kind, least in ((ChatRequest, CHAT), (CompletionRequest, PROMPT)):
        found = sampling_of(kind.model_validate({**least, **asked}))
        assert found == SamplingRequest(max_tokens=7, seed=3, presence_penalty=0.0, frequency_penalty=-2.0)


def test_of_two_limits_the_smaller_one_holds() -> None:
    for limits in (
        {"max_tokens": 7, "max_completion_tokens": 9},
        {"max_tokens": 9, "max_completion_tokens": 7},
        {"max_completion_tokens": 7},
    ):
        assert sampling_of(ChatRequest.model_validate({**CHAT, **limits})) == SamplingRequest(max_tokens=7)


@pytest.mark.parametrize("seed", [-(2**63), -2, -1, 0, 2**63 - 1])
def test_every_seed_that_is_taken_is_one_for_a_model(seed: int) -> None:
    found = sampling_of(CompletionRequest.model_validate({**PROMPT, "seed": seed}))
    assert found is not None
    checked("x", found.applied_to(Sampling()))


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0.0, "top_p": 1e-300, "seed": 0, "presence_penalty": -2.0, "frequency_penalty": -2.0, "max_tokens": 1},
        {"temperature": 2.0, "top_p": 1.0, "seed": 5, "presence_penalty": 2.0, "frequency_penalty": 2.0, "max_tokens": 2**31 - 1},
    ],
)
def test_whatever_passes_the_door_passes_the_model(asked: dict[str, Any]) -> None:
    found = sampling_of(CompletionRequest.model_validate({**PROMPT, **asked}))
    assert found is not None
    checked("x", found.applied_to(Sampling()))
