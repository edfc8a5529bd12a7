from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.lorahub.composition import Stack, read_stack
from adapters.lorahub.merging import merged_by_peft, weighted_sum
from rag.core.errors import InputError
from tests.adapters.lorahub.parts import logits, saved
from tests.adapters.tiny import tiny

WEIGHTS = [0.5, -0.7, 1.2]


@pytest.fixture(params=[False, True], ids=["alpha/r", "alpha/sqrt(r)"])
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Stack:
    return read_stack([saved(tmp_path / f"lora{seed}", seed=seed, rank_stabilised=request.param) for seed in (1, 2, 3)])


def deltas(stack: Stack, layer: str) -> list[torch.Tensor]:
    """What each LoRA adds to a layer's weight."""
    return [stack.scaling * b @ a for a, b in zip(stack.a[layer], stack.b[layer], strict=True)]


def test_the_weighted_sum_is_exact(stack: Stack) -> None:
    factors = weighted_sum(stack, WEIGHTS)
    assert (factors.r, factors.alpha, factors.residual) == (6, 6.0, 0.0)
    for layer, (a, b) in factors.pairs.items():
        expected = sum(weight * delta for weight, delta in zip(WEIGHTS, deltas(stack, layer), strict=True))
        torch.testing.assert_close(b @ a, expected, rtol=0, atol=1e-14)


def test_the_weighted_sum_is_not_lorahubs(stack: Stack) -> None:
    factors, composed = weighted_sum(stack, WEIGHTS), stack.composed(WEIGHTS)
    for layer, (a, b) in composed.items():
        merged_a, merged_b = factors.pairs[layer]
        assert (stack.scaling * b @ a - merged_b @ merged_a).norm() > 0.1 * (merged_b @ merged_a).norm()


def test_the_scaling_is_pefts(stack: Stack) -> None:
    from adapters.lorahub.composition import WornStack

    worn = WornStack(tiny("llama", torch.float64), stack)
    (scaling,) = {module.scaling["default"] for module in worn.adapted.worn.layers().values()}  # type: ignore[attr-defined]
    assert scaling == pytest.approx(stack.scaling, abs=1e-15)


@pytest.mark.parametrize("kind", ["ties", "dare_linear", "dare_ties"])
def test_pefts_merges_give_factors_and_the_model_back(stack: Stack, kind: Any) -> None:
    model = tiny("llama", torch.float64)
    before = logits(model)
    state = torch.get_rng_state()
    one, two, other = (merged_by_peft(model, stack, [1.0, 1.0, 1.0], kind, 0.5, seed) for seed in (1, 1, 2))
    assert torch.equal(logits(model), before)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any("lora" in name for name, _ in model.named_modules())
    assert (one.r, set(one.pairs)) == (2, set(stack.a))
    same = [torch.equal(one.pairs[layer][0], two.pairs[layer][0]) for layer in one.pairs]
    drawn = [torch.equal(one.pairs[layer][0], other.pairs[layer][0]) for layer in one.pairs]
    assert all(same)
    assert all(drawn) == (kind == "ties")  # only DARE draws


def test_dare_that_drops_nothing_is_pefts_linear_sum(tmp_path: Path) -> None:
    stack = read_stack([saved(tmp_path / f"lora{seed}", seed=seed) for seed in (1, 2)])
    factors = merged_by_peft(tiny("llama", torch.float64), stack, [1.0, 1.0], "dare_linear", density=1.0)
    for layer, (a, b) in factors.pairs.items():
        expected = stack.scaling * stack.b[layer].sum(0) @ stack.a[layer].sum(0)
        torch.testing.assert_close(b @ a, expected, rtol=0, atol=1e-6)  # PEFT keeps its factors in float32


def test_bad_input(tmp_path: Path) -> None:
    stack = read_stack([saved(tmp_path / "one"), saved(tmp_path / "two", seed=2)])
    with pytest.raises(InputError, match="2 LoRAs and 1 weights"):
        weighted_sum(stack, [1.0])
    with pytest.raises(InputError, match="kind is"):
        merged_by_peft(tiny("llama"), stack, [1.0, 1.0], "linear")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="density"):
        merged_by_peft(tiny("llama"), stack, [1.0, 1.0], "ties", density=0)
