"""Child-Tuning: the fixed child network of D, and the draws of F."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from adapters import adapt
from adapters.adapted import Adapted
from adapters.anatomy import blocks
from adapters.contract import NeedsExamples, Steps
from adapters.selective.child_tuning.config import ChildTuning
from rag.core.errors import AdapterError, InputError
from tests.adapters.selective.steps import Make, adamw, losses, momentum, moved, prepare, take_steps, values
from tests.adapters.tiny import batch_for, tiny


def in_blocks(model: Any) -> dict[str, nn.Parameter]:
    inside = tuple(f"{block.name}." for block in blocks(model))
    return {name: parameter for name, parameter in model.named_parameters() if name.startswith(inside)}


@pytest.mark.parametrize("make", [adamw, momentum])
@pytest.mark.parametrize("on", ["llama", "gpt2", "bert", "t5"])
def test_d_moves_its_share_of_the_blocks_and_nothing_else(on: str, make: Make) -> None:
    adapted = adapt(tiny(on, torch.float64), ChildTuning("D", p=0.2))
    prepare(adapted, on)
    before, model = values(adapted.base), adapted.base
    take_steps(adapted, on, make=make)
    where = {name: mask for name, mask in moved(before, model).items() if not name.startswith("classifier.")}
    assert set(where) <= set(in_blocks(model))
    assert sum(int(mask.sum()) for mask in where.values()) == int(0.2 * sum(p.numel() for p in in_blocks(model).values()))


def test_d_takes_what_is_above_the_quantile() -> None:
    adapted = adapt(tiny("llama", torch.float64), ChildTuning("D", p=0.25))  # a whole number of entries
    parameters = in_blocks(adapted.base)
    fisher = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    for loss in losses(adapted.model, "llama")():
        for total, gradient in zip(fisher.values(), torch.autograd.grad(loss, list(parameters.values())), strict=True):
            total += gradient**2
    bound = torch.quantile(torch.cat([total.flatten() for total in fisher.values()]), 0.75)
    prepare(adapted, "llama")
    for name, total in fisher.items():
        expected = (total.flatten() > bound).nonzero().flatten()
        found = adapted.worn.state().get(f"{name}.indices", torch.empty(0, dtype=torch.int64))
        assert torch.equal(found, expected), name


def test_d_looks_at_all_examples_unless_told_otherwise() -> None:
    for examples, left in ((None, 0), (1, 2)):
        adapted = adapt(tiny("llama"), ChildTuning("D", examples=examples))
        assert isinstance(adapted.worn, NeedsExamples)
        drawn = losses(adapted.model, "llama")()
        adapted.worn.prepare(lambda drawn=drawn: drawn)  # type: ignore[misc]
        assert len(list(drawn)) == left


def test_d_keeps_the_gradients_of_its_entries_as_they_are_and_no_others() -> None:
    adapted = adapt(tiny("llama", torch.float64), ChildTuning("D", p=0.2))
    prepare(adapted, "llama")
    adapted.model(**batch_for("llama")).loss.backward()
    plain = gradients(adapted)
    assert isinstance(adapted.worn, Steps)
    adapted.worn.before_step()
    for name, masked in gradients(adapted).items():
        kept = torch.zeros(masked.numel(), dtype=torch.bool)
        kept[adapted.worn.state()[f"{name}.indices"]] = True
        assert not kept.all()
        assert torch.equal(masked.flatten(), torch.where(kept, plain[name].flatten(), 0))


def gradients(adapted: Adapted) -> dict[str, torch.Tensor]:
    return {name: parameter.grad.clone() for name, parameter in adapted.worn.trained().items() if parameter.grad is not None}


def drawn(adapted: Adapted, plain: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradients ``plain`` after one more draw."""
    assert isinstance(adapted.worn, Steps)
    for name, parameter in adapted.worn.trained().items():
        parameter.grad = plain[name].clone()
    adapted.worn.before_step()
    return gradients(adapted)


def with_gradients(p: float, seed: int = 0) -> tuple[Adapted, dict[str, torch.Tensor]]:
    adapted = adapt(tiny("llama", torch.float64), ChildTuning("F", p=p, seed=seed))
    adapted.model(**batch_for("llama")).loss.backward()
    return adapted, gradients(adapted)


def test_f_makes_each_entry_zero_or_g_over_p_with_the_mean_g() -> None:
    p, draws = 0.3, 400
    adapted, plain = with_gradients(p)
    name = "model.layers.0.mlp.up_proj.weight"
    kept = torch.zeros_like(plain[name])
    for _ in range(draws):
        masked = drawn(adapted, plain)[name]
        is_kept = masked != 0
        assert torch.equal(masked[is_kept], plain[name][is_kept] / p)
        kept += is_kept
    assert (plain[name] != 0).all()
    # six standard deviations of a mean of Bernoulli draws, for each of 1536 entries and for all of them
    assert (kept / draws - p).abs().max() < 6 * (p * (1 - p) / draws) ** 0.5
    assert abs(float(kept.mean()) / draws - p) < 6 * (p * (1 - p) / draws / kept.numel()) ** 0.5


def test_f_draws_anew_at_each_step_and_for_each_parameter() -> None:
    adapted, plain = with_gradients(0.5)
    first, second = drawn(adapted, plain), drawn(adapted, plain)
    name, other = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"
    assert not torch.equal(first[name] != 0, second[name] != 0)
    assert not torch.equal(first[name] != 0, first[other] != 0)


def test_f_draws_by_its_seed_and_anew_when_training_begins() -> None:
    adapted, plain = with_gradients(0.5)
    name = "model.layers.0.self_attn.q_proj.weight"
    first = drawn(adapted, plain)[name]
    assert isinstance(adapted.worn, Steps)
    torch.manual_seed(99)
    adapted.worn.begin(3)
    assert torch.equal(drawn(adapted, plain)[name], first)
    other, same_plain = with_gradients(0.5, seed=1)
    assert not torch.equal(drawn(other, same_plain)[name], first)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_f_with_p_1_is_plain_adamw_bit_for_bit(dtype: torch.dtype) -> None:
    adapted = adapt(tiny("llama", dtype), ChildTuning("F", p=1.0))
    take_steps(adapted, "llama", steps=5)
    plain = tiny("llama", dtype)
    optimizer = adamw(list(plain.parameters()))
    for _ in range(5):
        plain(**batch_for("llama")).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert not moved(values(plain), adapted.base)


def test_f_drops_what_is_not_finite_too() -> None:
    adapted, plain = with_gradients(0.5)
    name = "model.layers.0.mlp.up_proj.weight"
    plain[name] = torch.full_like(plain[name], float("inf"))
    masked = drawn(adapted, plain)[name]
    assert ((masked == 0) | masked.isinf()).all()
    assert (masked == 0).any()


def test_f_trains_all_but_the_head_and_saves_it_whole() -> None:
    adapted = adapt(tiny("bert"), ChildTuning("F"))
    names = {name for name, _ in adapted.base.named_parameters() if not name.startswith("classifier.")}
    assert set(adapted.worn.trained()) == set(adapted.worn.state()) == set(adapted.merged()) == names
    assert not isinstance(adapted.worn, NeedsExamples)


def test_f_is_taken_off_bit_for_bit() -> None:
    adapted = adapt(tiny("gpt2"), ChildTuning("F"))
    take_steps(adapted, "gpt2")
    before = values(tiny("gpt2"))
    assert moved(before, adapted.base)
    assert not moved(before, adapted.remove())


def test_a_share_below_one_entry_is_an_error() -> None:
    with pytest.raises(AdapterError, match="p=1e-09"):
        adapt(tiny("llama"), ChildTuning("D", p=1e-9))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"variant": "E"}, "variant"),
        ({"p": 0}, "p is"),
        ({"p": 1.5}, "p is"),
        ({"examples": 0}, "examples"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        ChildTuning(**options)
