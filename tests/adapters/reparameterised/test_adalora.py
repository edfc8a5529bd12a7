"""AdaLoRA: formula, schedule, budget, penalty, and the same as plain LoRA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters.adapted import Adapted, adapt, load
from adapters.contract import NeedsExamples, Penalised, Steps
from adapters.reparameterised.adalora.config import AdaLoRA
from rag.core.errors import AdapterError, InputError
from tests.adapters.reparameterised.test_lora import LAYERS, logits, plain, worn
from tests.adapters.tiny import NAMES, batch_for, tiny


def values(adapted: Adapted) -> torch.Tensor:
    """All E, one layer after the other."""
    return torch.cat([value.flatten() for key, value in adapted.worn.state().items() if key.endswith("lora_E")])


def train(adapted: Adapted, name: str, total: int) -> list[torch.Tensor]:
    """E after each of ``total`` steps."""
    torch.manual_seed(5)
    steps: Any = adapted.worn
    optimiser = torch.optim.AdamW(adapted.trained().values(), lr=0.01)
    steps.begin(total)
    seen = []
    for step in range(total):
        optimiser.zero_grad()
        (adapted.model(**batch_for(name)).loss + steps.penalty()).backward()
        steps.before_step()
        optimiser.step()
        steps.after_step(step)
        seen.append(values(adapted).clone())
    return seen


@pytest.mark.parametrize("name", NAMES)
def test_starts_as_the_base_model(name: str) -> None:
    base = tiny(name)
    before = logits(base, name)
    assert torch.equal(logits(adapt(base, AdaLoRA()).model, name), before)


@pytest.mark.parametrize("name", NAMES)
def test_layer_merged_weight_and_plain_lora_are_the_formula(name: str) -> None:
    adapted = worn(name, AdaLoRA(init_r=4, target_r=2, alpha=6.0, targets="attention"))
    layer: Any = adapted.base.get_submodule(LAYERS[name])
    a, b, e = (getattr(layer, part)["default"] for part in ("lora_A", "lora_B", "lora_E"))
    with torch.no_grad():
        e[1] = 0
    change = 6.0 / (4 + 1e-5) * b @ torch.diag(e.flatten()) @ a
    x = torch.randn(5, a.shape[1], dtype=torch.float64)
    assert torch.allclose(layer(x), layer.get_base_layer()(x) + x @ change.T, atol=1e-13)
    new = adapted.merged()[f"{LAYERS[name]}.weight"]
    assert torch.allclose(new if new.shape == plain(layer).shape else new.T, plain(layer) + change, atol=1e-13)
    factors = adapted.to_lora()
    own, out = factors.pairs[LAYERS[name]]
    assert (factors.r, factors.alpha, factors.residual) == (4, 4.0, 0.0)
    assert not own[1].any()
    assert torch.allclose(factors.alpha / factors.r * out @ own, change, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("tinit", "tfinal", "delta_t"), [(0, 0, 1), (3, 4, 1), (2, 3, 5)])
def test_ends_at_the_budget(name: str, tinit: int, tfinal: int, delta_t: int) -> None:
    adapted = adapt(tiny(name), AdaLoRA(init_r=4, target_r=2, tinit=tinit, tfinal=tfinal, delta_t=delta_t))
    seen = train(adapted, name, 14)
    assert int((seen[-1] != 0).sum()) == len(seen[-1]) // 2
    assert all((before != 0).all() for before in seen[:tinit])
    last = [(after != 0).tolist() for after in seen[14 - tfinal - 1 :]]
    assert all(mask == last[0] for mask in last), "the last steps keep the same triplets"


def test_budget_falls_along_a_cubic_curve() -> None:
    adapted = adapt(tiny("llama"), AdaLoRA(init_r=4, target_r=1, tinit=2, tfinal=3))
    seen = train(adapted, "llama", 20)
    start, end = len(seen[0]), len(seen[0]) // 4
    for taken, found in enumerate(seen[:17], start=1):
        left = min(1.0, 1 - (taken - 2) / (20 - 3 - 2))
        assert int((found != 0).sum()) == int((start - end) * left**3 + end), taken
    ranks = (seen[-1].reshape(-1, 4) != 0).sum(dim=1)
    assert ranks.min() < ranks.max(), "one threshold for the whole model: layers end with different ranks"


def test_saved_after_training_it_fits_a_fresh_model_and_peft(tmp_path: Path) -> None:
    import peft

    adapted = adapt(tiny("llama"), AdaLoRA(init_r=4, target_r=2))
    shapes = {key: value.shape for key, value in adapted.worn.state().items()}
    train(adapted, "llama", 6)
    assert {key: value.shape for key, value in adapted.worn.state().items()} == shapes
    expected = logits(adapted.model, "llama")
    adapted.save(tmp_path / "saved")
    assert torch.equal(logits(load(tiny("llama"), tmp_path / "saved").model, "llama"), expected)
    assert torch.equal(logits(peft.PeftModel.from_pretrained(tiny("llama"), tmp_path / "saved"), "llama"), expected)
    adapted.export("lora", tmp_path / "plain")
    assert torch.allclose(logits(load(tiny("llama"), tmp_path / "plain").model, "llama"), expected, atol=1e-5)


def test_can_be_trained_again() -> None:
    adapted = adapt(tiny("llama"), AdaLoRA(init_r=4, target_r=2))
    train(adapted, "llama", 6)
    seen = train(adapted, "llama", 8)
    assert int((seen[0] != 0).sum()) > int((seen[-1] != 0).sum()) == len(seen[-1]) // 2


def test_penalty_is_the_mean_distance_from_orthogonality() -> None:
    adapted = worn("bert", AdaLoRA(init_r=4, target_r=2, orthogonality=0.3))
    assert isinstance(adapted.worn, Penalised)
    distances = []
    for key, value in adapted.worn.trained().items():
        if "lora_A" in key or "lora_B" in key:
            rows = value if "lora_A" in key else value.T
            distances.append((rows @ rows.T - torch.eye(4, dtype=torch.float64)).square().sum().sqrt())
    assert torch.allclose(adapted.worn.penalty(), 0.3 * torch.stack(distances).mean(), rtol=1e-12)
    with torch.no_grad():
        for key, value in adapted.worn.trained().items():
            if "lora_A" in key or "lora_B" in key:
                rows = value if "lora_A" in key else value.T
                rows.copy_(torch.eye(*rows.shape, dtype=torch.float64))
    nothing = adapted.worn.penalty()
    nothing.backward()
    assert nothing == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in adapted.worn.trained().values())


def test_the_models_own_loss_holds_no_penalty() -> None:
    adapted = worn("llama", AdaLoRA(init_r=4, target_r=2, orthogonality=5.0))
    with torch.no_grad():
        loss = adapted.model(**batch_for("llama")).loss
        assert torch.allclose(loss, adapted.merge()(**batch_for("llama")).loss, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_ranks_are_no_parameters_that_train(dtype: torch.dtype) -> None:
    adapted = adapt(tiny("llama", dtype), AdaLoRA())
    assert not any("ranknum" in key for key in adapted.trained())
    assert all(not p.requires_grad for key, p in adapted.model.named_parameters() if "ranknum" in key)
    assert isinstance(adapted.worn, Steps)
    assert not isinstance(adapted.worn, NeedsExamples)


@pytest.mark.parametrize(("options", "total"), [({"tinit": 3, "tfinal": 4}, 7), ({"tfinal": 4}, 5), ({}, 1), ({}, 0)])
def test_too_few_steps_are_refused(options: dict[str, Any], total: int) -> None:
    adapted: Any = adapt(tiny("llama"), AdaLoRA(**options)).worn
    with pytest.raises(InputError, match="take at least"):
        adapted.begin(total)
    adapted.begin(max(1, options.get("tinit", 0)) + options.get("tfinal", 0) + 1)


def test_a_step_needs_begin_and_gradients() -> None:
    adapted = adapt(tiny("llama"), AdaLoRA())
    steps: Any = adapted.worn
    with pytest.raises(AdapterError, match="begin"):
        steps.after_step(0)
    steps.begin(5)
    with pytest.raises(AdapterError, match="no gradient"):
        steps.after_step(0)


@pytest.mark.parametrize(
    "given",
    [
        {"init_r": 0},
        {"target_r": 0},
        {"init_r": 4, "target_r": 4},
        {"alpha": 0},
        {"alpha": float("inf")},
        {"dropout": 1.0},
        {"tinit": -1},
        {"tfinal": 1.5},
        {"delta_t": 0},
        {"beta1": 1.0},
        {"beta2": 0},
        {"orthogonality": -0.1},
    ],
)
def test_bad_options(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="AdaLoRA"):
        AdaLoRA(**given)
