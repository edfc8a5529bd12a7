"""LoRA: formula, start, size, targets, and what it is written as."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from adapters.adapted import Adapted, adapt, load
from adapters.reparameterised.lora.config import LoRA
from rag.core.errors import AdapterError, InputError
from tests.adapters.tiny import NAMES, batch_for, tiny

LAYERS = {
    "llama": "model.layers.1.self_attn.q_proj",
    "gpt2": "transformer.h.1.attn.c_attn",
    "bert": "bert.encoder.layer.1.attention.self.query",
    "t5": "decoder.block.1.layer.0.SelfAttention.q",
}


def worn(name: str, method: Any, dtype: torch.dtype = torch.float64) -> Adapted:
    """`tiny` with the method, its trained parameters moved away from where they start."""
    torch.manual_seed(3)
    adapted = adapt(tiny(name, dtype), method)
    with torch.no_grad():
        for parameter in adapted.worn.trained().values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return adapted


def plain(layer: Any) -> Tensor:
    """The base layer's weight as [out, in]."""
    weight: Tensor = layer.get_base_layer().weight
    return weight if isinstance(layer.get_base_layer(), nn.Linear) else weight.T


def logits(model: nn.Module, name: str) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**batch_for(name)).logits
    return found


@pytest.mark.parametrize("name", NAMES)
def test_starts_as_the_base_model(name: str) -> None:
    base = tiny(name)
    before = logits(base, name)
    assert torch.equal(logits(adapt(base, LoRA()).model, name), before)


def test_a_is_kaiming_uniform_and_b_zero() -> None:
    torch.manual_seed(0)
    state = adapt(tiny("llama"), LoRA(r=8)).worn.state()
    for key, value in state.items():
        if "lora_B" in key:
            assert not value.any()
        else:
            bound = math.sqrt(6 / ((1 + 5) * value.shape[1]))  # a = sqrt 5
            assert 0.8 * bound < value.abs().max() <= bound


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stable", [False, True])
def test_formula_and_merged_weight_of_a_layer(name: str, stable: bool) -> None:
    adapted = worn(name, LoRA(r=4, alpha=6.0, rank_stabilised=stable))
    layer: Any = adapted.base.get_submodule(LAYERS[name])
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    scaling = 6.0 / (math.sqrt(4) if stable else 4)
    x = torch.randn(5, a.shape[1], dtype=torch.float64)
    expected = layer.get_base_layer()(x) + scaling * x @ a.T @ b.T
    assert torch.allclose(layer(x), expected, atol=1e-12)
    new = adapted.merged()[f"{LAYERS[name]}.weight"]
    change = (new if isinstance(layer.get_base_layer(), nn.Linear) else new.T) - plain(layer)
    assert torch.allclose(layer(x) - layer.get_base_layer()(x), x @ change.T, atol=1e-12)
    assert torch.linalg.matrix_rank(change, atol=1e-9) == 4


@pytest.mark.parametrize("name", NAMES)
def test_size_is_the_sum_of_r_times_in_and_out(name: str) -> None:
    adapted = adapt(tiny(name), LoRA(r=3, targets="all"))
    layers = adapted.worn.layers().values()  # type: ignore[attr-defined]
    assert sum(p.numel() for p in adapted.worn.trained().values()) == sum(3 * sum(plain(layer).shape) for layer in layers)


def test_dropout_acts_in_training_only() -> None:
    adapted = worn("llama", LoRA(dropout=0.5), torch.float32)
    assert torch.equal(logits(adapted.model, "llama"), logits(adapted.model, "llama")), "the base was in evaluation mode"
    adapted.model.train()
    assert not torch.equal(logits(adapted.model, "llama"), logits(adapted.model, "llama"))


@pytest.mark.parametrize(
    ("name", "targets", "expected"),
    [
        ("llama", "attention", {"q_proj", "k_proj", "v_proj"}),
        ("llama", "all", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}),
        ("llama", ("q_proj", "v_proj"), {"q_proj", "v_proj"}),
        ("gpt2", "attention", {"c_attn"}),
        ("gpt2", ("attn.c_proj",), {"c_proj"}),
        ("bert", ("output.dense",), {"dense"}),
        ("t5", "attention", {"q", "k", "v"}),
    ],
)
def test_targets(name: str, targets: str | tuple[str, ...], expected: set[str]) -> None:
    layers = adapt(tiny(name), LoRA(targets=targets)).worn.layers()  # type: ignore[attr-defined]
    assert {key.rpartition(".")[2] for key in layers} == expected


def test_an_ending_is_a_whole_part_of_a_name() -> None:
    layers = adapt(tiny("gpt2"), LoRA(targets=("attn.c_proj",))).worn.layers()  # type: ignore[attr-defined]
    assert list(layers) == ["transformer.h.0.attn.c_proj", "transformer.h.1.attn.c_proj"]
    with pytest.raises(AdapterError, match="c_attn"):
        adapt(tiny("gpt2"), LoRA(targets=("proj",)))


def test_unknown_or_no_targets_are_refused() -> None:
    with pytest.raises(AdapterError, match=r"no layer of LlamaForCausalLM is called query.*q_proj"):
        adapt(tiny("llama"), LoRA(targets=("query",)))
    with pytest.raises(InputError, match="targets is empty"):
        adapt(tiny("llama"), LoRA(targets=()))


@pytest.mark.filterwarnings("error::UserWarning")
def test_peft_has_nothing_to_warn_of_on_gpt2() -> None:
    adapt(tiny("gpt2"), LoRA(targets="all"))


@pytest.mark.parametrize("given", [{"r": 0}, {"r": True}, {"r": 2.0}, {"dropout": 1.0}, {"dropout": -0.1}])
def test_bad_options(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="LoRA"):
        LoRA(**given)


@pytest.mark.filterwarnings("error:fan_in_fan_out")  # PEFT is told of GPT-2's layout
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_export_is_read_by_graft_and_by_peft(name: str, tmp_path: Path) -> None:
    import peft

    adapted = worn(name, LoRA(r=4, alpha=6.0, rank_stabilised=True), torch.float32)
    expected = logits(adapted.model, name)
    factors = adapted.export("lora", tmp_path / "plain")
    assert factors is not None
    assert (factors.r, factors.alpha, factors.residual) == (4, 4.0, 0.0)
    assert torch.allclose(logits(load(tiny(name), tmp_path / "plain").model, name), expected, atol=1e-5)
    assert torch.allclose(logits(peft.PeftModel.from_pretrained(tiny(name), tmp_path / "plain"), name), expected, atol=1e-5)
    adapted.save(tmp_path / "saved")
    assert torch.equal(logits(peft.PeftModel.from_pretrained(tiny(name), tmp_path / "saved"), name), expected)
