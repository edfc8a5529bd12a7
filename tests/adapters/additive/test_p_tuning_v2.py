"""P-tuning v2: size, what trains, and its two forms. What it shares with prefix-tuning is tested there."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapters.adapted import adapt
from adapters.additive.p_tuning_v2.config import PTuningV2
from rag.core.errors import InputError
from tests.adapters.additive.test_prefix_tuning import KEY, logits, other_start
from tests.adapters.tiny import NAMES, batch_for, tiny


@pytest.mark.parametrize(("name", "width"), [("llama", 2 * 8), ("gpt2", 32), ("bert", 32), ("t5", 32)])
@pytest.mark.parametrize("length", [1, 4, 9])
def test_size_is_length_times_layers_times_keys_and_values(name: str, width: int, length: int) -> None:
    adapted = adapt(tiny(name), PTuningV2(length=length))
    (parameter,) = adapted.worn.trained().values()
    assert parameter.numel() == length * 2 * 2 * width
    head = 3 * 32 + 3 if name == "bert" else 0
    assert adapted.report().trained == parameter.numel() + head


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["none", "mlp"])
def test_loaded_vectors_give_the_same_answers(name: str, form: str) -> None:
    adapted = adapt(tiny(name), PTuningV2(length=5, reparameterisation=form, hidden=16))
    made, state = logits(adapted.model, **batch_for(name)), adapted.worn.state()
    other = other_start(name, PTuningV2(length=5, reparameterisation=form, hidden=16))
    assert not torch.equal(logits(other.model, **batch_for(name)), made)
    other.worn.load_state(state)
    assert torch.equal(logits(other.model, **batch_for(name)), made)
    assert len(other.worn.trained()) == 1


def test_vectors_that_train_themselves_stay_the_same_parameter() -> None:
    adapted = adapt(tiny("llama"), PTuningV2(length=5))
    (parameter,) = adapted.worn.trained().values()
    state = {KEY: torch.randn(5, 64)}
    adapted.worn.load_state(state)
    assert next(iter(adapted.worn.trained().values())) is parameter
    assert torch.equal(parameter, state[KEY])
    state[KEY].zero_()
    assert parameter.any(), "the caller's tensor is not kept"


def test_state_is_no_view_of_what_trains() -> None:
    adapted = adapt(tiny("llama"), PTuningV2(length=5))
    state = adapted.worn.state()
    with torch.no_grad():
        next(iter(adapted.worn.trained().values())).zero_()
    assert state[KEY].any()


def test_learns_what_the_frozen_model_does_not_know() -> None:
    torch.manual_seed(0)
    adapted = adapt(tiny("bert"), PTuningV2(length=4))
    batch = batch_for("bert", rows=6)
    optimiser = torch.optim.AdamW(adapted.trained().values(), lr=0.05)
    first = adapted.model(**batch).loss.item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = adapted.model(**batch).loss
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.5 * first


@pytest.mark.parametrize("given", [{"length": 0}, {"reparameterisation": "lstm"}, {"hidden": 0}, {"reparameterisation": None}])
def test_bad_options(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="PTuningV2"):
        PTuningV2(**given)
