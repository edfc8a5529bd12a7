from __future__ import annotations

from typing import Any

import pytest

from adapters.training.options import Options
from rag.core.errors import InputError


def test_the_rate_rises_and_falls() -> None:
    linear = Options(lr=1.0, warmup=0.2)
    assert [round(linear.rate(step, 10), 4) for step in range(10)] == [0.3333, 0.6667, 1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    cosine = Options(lr=1.0, warmup=0.0, schedule="cosine")
    assert [round(cosine.rate(step, 4), 4) for step in range(4)] == [1, 0.8536, 0.5, 0.1464]
    constant = Options(lr=1.0, warmup=0.5, schedule="constant")
    assert [round(constant.rate(step, 4), 4) for step in range(4)] == [0.3333, 0.6667, 1, 1]
    assert Options(lr=1.0, warmup=0.9).rate(0, 1) == 0.5


def test_steps_go_before_epochs() -> None:
    assert Options(epochs=3).total(7) == 21
    assert Options(epochs=3, steps=5).total(7) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": 0},
        {"lr": float("nan")},
        {"lr": -1},
        {"epochs": 0},
        {"steps": 0},
        {"steps": 1.5},
        {"batch": True},
        {"accumulate": 0},
        {"warmup": 1},
        {"schedule": "step"},
        {"max_grad_norm": 0},
        {"weight_decay": -1},
        {"precision": "int8"},
        {"eval_every": 0},
        {"patience": 0},
        {"save_every": -1},
        {"keep": "first"},
        {"seed": -1},
        {"seed": 2**32},
    ],
)
def test_a_wrong_option_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"training: {next(iter(wrong))} is"):
        Options(**wrong)
