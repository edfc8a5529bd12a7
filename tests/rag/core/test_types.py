from __future__ import annotations

from dataclasses import fields, replace

import pytest

from rag.core.types import Sampling, SamplingRequest

SET = Sampling(max_tokens=64, temperature=0.2, top_p=0.9, stop=("x",), seed=1, logprobs=0, presence_penalty=0.5, frequency_penalty=0.6)


def test_a_request_for_nothing_changes_nothing() -> None:
    assert SamplingRequest().applied_to(SET) == SET


@pytest.mark.parametrize(
    ("name", "value"), [("temperature", 0.0), ("top_p", 0.1), ("seed", 0), ("presence_penalty", 0.0), ("frequency_penalty", -2.0)]
)
def test_what_is_asked_for_stands_in_the_place_of_what_was_set(name: str, value: float) -> None:
    assert SamplingRequest(**{name: value}).applied_to(SET) == replace(SET, **{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "given"), [(1, 1), (63, 63), (64, 64), (65, 64), (2**31, 64)])
def test_max_tokens_is_only_lowered(asked: int, given: int) -> None:
    assert SamplingRequest(max_tokens=asked).applied_to(SET) == replace(SET, max_tokens=given)


def test_it_asks_for_nothing_that_sampling_does_not_have() -> None:
    assert {field.name for field in fields(SamplingRequest)} < {field.name for field in fields(Sampling)}
