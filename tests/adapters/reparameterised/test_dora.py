"""DoRA: formula, start, gradients, and how well a plain LoRA stands in for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adapters.adapted import Adapted, adapt
from adapters.reparameterised.dora.config import DoRA
from adapters.reparameterised.lora.config import LoRA
from rag.core.errors import AdapterError, InputError
from tests.adapters.reparameterised.test_lora import LAYERS, logits, plain, worn
from tests.adapters.tiny import NAMES, tiny


def parts(layer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """A [r, in], B [out, r], m [out]."""
    return layer.lora_A["default"].weight, layer.lora_B["default"].weight, layer.lora_magnitude_vector["default"].weight


def merged_of(adapted: Adapted, name: str) -> Tensor:
    """The new weight of the layer as [out, in]."""
    new = adapted.merged()[f"{LAYERS[name]}.weight"]
    base: Any = adapted.base.get_submodule(LAYERS[name])
    return new if isinstance(base.get_base_layer(), nn.Linear) else new.T


@pytest.mark.parametrize("name", NAMES)
def test_starts_as_the_base_model(name: str) -> None:
    base = tiny(name, torch.float64)
    before = logits(base, name)
    adapted = adapt(base, DoRA(r=4))
    assert torch.equal(logits(adapted.model, name), before)
    for key, layer in adapted.worn.layers().items():  # type: ignore[attr-defined]
        assert torch.allclose(parts(layer)[2], plain(layer).norm(dim=1), rtol=1e-12), key


@pytest.mark.parametrize("name", NAMES)
def test_formula_and_merged_weight_of_a_layer(name: str) -> None:
    adapted = worn(name, DoRA(r=4, alpha=6.0))
    layer: Any = adapted.base.get_submodule(LAYERS[name])
    a, b, m = parts(layer)
    with torch.no_grad():
        m[1] = -m[1].abs()  # a magnitude may become negative
    whole = plain(layer) + 6.0 / 4 * b @ a
    expected = m[:, None] * whole / whole.norm(dim=1, keepdim=True)
    assert torch.allclose(merged_of(adapted, name), expected, rtol=1e-12, atol=1e-12)
    assert torch.allclose(merged_of(adapted, name).norm(dim=1), m.abs(), rtol=1e-12)
    x = torch.randn(5, a.shape[1], dtype=torch.float64)
    bias = layer.get_base_layer().bias  # not scaled
    assert torch.allclose(layer(x), functional.linear(x, expected, bias), atol=1e-12)


def test_gradients_take_the_norm_for_a_constant() -> None:
    adapted = worn("llama", DoRA(r=4, alpha=6.0))
    layer: Any = adapted.base.get_submodule(LAYERS["llama"])
    a, b, m = parts(layer)
    x, pull = torch.randn(5, 32, dtype=torch.float64), torch.randn(5, 32, dtype=torch.float64)
    (layer(x) * pull).sum().backward()
    towards = pull.T @ x  # of the loss with respect to W'
    whole = plain(layer) + 1.5 * b @ a
    turned = whole / whole.norm(dim=1, keepdim=True)
    assert torch.allclose(m.grad, (towards * turned).sum(dim=1), atol=1e-10)
    scaled = towards * (m / whole.norm(dim=1))[:, None] * 1.5
    assert torch.allclose(b.grad, scaled @ a.T, atol=1e-10)
    assert torch.allclose(a.grad, b.T @ scaled, atol=1e-10)


def test_has_one_number_per_output_more_than_lora() -> None:
    dora = adapt(tiny("llama"), DoRA(r=4, targets="all"))
    outputs = sum(plain(layer).shape[0] for layer in dora.worn.layers().values())  # type: ignore[attr-defined]
    lora = adapt(tiny("llama"), LoRA(r=4, targets="all"))
    assert dora.report().trained == lora.report().trained + outputs


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_export_of_full_rank_is_exact(name: str) -> None:
    adapted = worn(name, DoRA(r=4, export_rank=40))  # more than the 32 that a layer of the tiny models can have
    factors = adapted.to_lora()
    assert factors.r == 40
    assert factors.residual < 1e-12
    for key, (a, b) in factors.pairs.items():
        layer: Any = adapted.base.get_submodule(key)
        new = adapted.merged()[f"{key}.weight"]
        new = new if isinstance(layer.get_base_layer(), nn.Linear) else new.T
        assert torch.allclose(plain(layer) + factors.alpha / factors.r * b @ a, new, atol=1e-12)


def test_export_of_low_rank_reports_what_the_best_factors_leave_out() -> None:
    adapted = worn("llama", DoRA(r=4, export_rank=5))
    residuals = []
    for key in adapted.to_lora().pairs:
        layer: Any = adapted.base.get_submodule(key)
        values = torch.linalg.svdvals(adapted.merged()[f"{key}.weight"] - plain(layer))
        residuals.append(float(values[5:].norm() / values.norm()))
    assert 0.05 < max(residuals) < 1
    assert adapted.to_lora().residual == pytest.approx(max(residuals), rel=1e-10)
    wider = worn("llama", DoRA(r=4, export_rank=10))
    assert wider.to_lora().residual < adapted.to_lora().residual


def test_export_of_an_untrained_dora_changes_nothing() -> None:
    factors = adapt(tiny("llama"), DoRA(r=4)).to_lora()
    assert factors.residual == 0.0
    assert not any((b @ a).any() for a, b in factors.pairs.values())


def test_export_keeps_the_magnitudes(tmp_path: Path) -> None:
    import peft

    adapted = worn("llama", DoRA(r=4, export_rank=32), torch.float32)
    adapted.export("lora", tmp_path / "plain")
    assert torch.allclose(
        logits(peft.PeftModel.from_pretrained(tiny("llama"), tmp_path / "plain"), "llama"), logits(adapted.model, "llama"), atol=1e-4
    )
    adapted.save(tmp_path / "saved")
    again = peft.PeftModel.from_pretrained(tiny("llama"), tmp_path / "saved")
    assert torch.equal(logits(again, "llama"), logits(adapted.model, "llama"))


@pytest.mark.parametrize("given", [{"r": 0}, {"export_rank": 0}, {"alpha": float("nan")}, {"dropout": 1}, {"alpha": "8"}])
def test_bad_options(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="DoRA"):
        DoRA(**given)


def test_unknown_targets_are_refused() -> None:
    with pytest.raises(AdapterError, match="DoRA: no layer"):
        adapt(tiny("llama"), DoRA(targets="query"))


def test_dropout_also_acts_on_the_way_through_the_weight() -> None:
    """PEFT's training form: all but the base layer's own output sees the thinned input."""
    adapted = worn("llama", DoRA(r=4, alpha=6.0, dropout=0.5))
    layer: Any = adapted.base.get_submodule(LAYERS["llama"])
    layer.train()
    a, b, m = parts(layer)
    x = torch.randn(5, 32, dtype=torch.float64)
    whole = plain(layer) + 1.5 * b @ a
    ratio = m / whole.norm(dim=1)
    torch.manual_seed(9)
    thin = functional.dropout(x, 0.5)
    torch.manual_seed(9)
    expected = x @ plain(layer).T + (ratio - 1) * (thin @ plain(layer).T) + ratio * 1.5 * (thin @ a.T @ b.T)
    assert torch.allclose(layer(x), expected, atol=1e-12)
