from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from adapters import adapt
from adapters.additive.serial_adapter.config import SerialAdapter
from adapters.additive.serial_adapter.layer import SerialBottleneck
from adapters.additive.serial_adapter.tuner import norm_parameters
from adapters.anatomy import blocks
from rag.core.errors import InputError
from tests.adapters.tiny import NAMES, batch_for, tiny


def logits(model: Any, name: str) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch_for(name)).logits.clone()


@pytest.mark.parametrize("name", NAMES)
def test_with_w_up_zero_the_model_is_the_base_model_whatever_w_down_is(name: str) -> None:
    base = logits(tiny(name, torch.float64), name)
    adapted = adapt(tiny(name, torch.float64), SerialAdapter(bottleneck=4))
    assert not torch.equal(logits(adapted.model, name), base)
    with torch.no_grad():
        for module in adapted.worn.modules.values():
            module.up.weight.zero_()
            module.down.weight.normal_()
            module.down.bias.normal_()
    assert torch.equal(logits(adapted.model, name), base)


@pytest.mark.parametrize("name", NAMES)
def test_two_adapters_a_block(name: str) -> None:
    m, d = 5, 32
    model = tiny(name)
    adapted = adapt(model, SerialAdapter(bottleneck=m, norms=False), head=())
    assert sum(p.numel() for p in adapted.trained().values()) == len(blocks(model)) * 2 * (2 * m * d + m + d)


def test_the_formula() -> None:
    torch.manual_seed(0)
    layer = SerialBottleneck(6, 3, 1.0).double()
    torch.nn.init.normal_(layer.down.bias)
    torch.nn.init.normal_(layer.up.bias)
    h = torch.randn(2, 4, 6, dtype=torch.float64)
    expected = h + F.gelu(h @ layer.down.weight.T + layer.down.bias) @ layer.up.weight.T + layer.up.bias
    torch.testing.assert_close(layer(h), expected)


@pytest.mark.parametrize("name", ["gpt2", "bert"])
@pytest.mark.parametrize("part", ["attention", "feed_forward"])
def test_it_stands_between_the_last_layer_and_the_residual(name: str, part: str) -> None:
    """A change that is the same for all inputs is then a change of that layer's bias."""
    change = torch.linspace(-1, 1, 32, dtype=torch.float64)
    adapted = adapt(tiny(name, torch.float64), SerialAdapter(bottleneck=4))
    output = getattr(blocks(adapted.base)[0], part).output
    with torch.no_grad():
        for module in adapted.worn.modules.values():
            module.up.weight.zero_()
        adapted.worn.modules[output].up.bias.copy_(change)
    other = tiny(name, torch.float64)
    with torch.no_grad():
        other.get_submodule(output).bias.add_(change)
    torch.testing.assert_close(logits(adapted.model, name), logits(other, name), rtol=0, atol=1e-12)


def test_the_start_is_a_normal_cut_at_two_deviations() -> None:
    torch.manual_seed(0)
    layer = SerialBottleneck(400, 100, 1e-3)
    for linear in (layer.down, layer.up):
        assert linear.weight.abs().max() <= 2e-3
        assert linear.weight.std().item() == pytest.approx(0.88e-3, rel=0.03)  # a normal's deviation within two of its own
        assert not linear.bias.any()


@pytest.mark.parametrize("name", NAMES)
def test_norms_train_unless_told_otherwise(name: str) -> None:
    with_norms = adapt(tiny(name), SerialAdapter(bottleneck=4)).trained()
    without = adapt(tiny(name), SerialAdapter(bottleneck=4, norms=False)).trained()
    base = {key for key in with_norms if key.startswith("base.")}
    assert set(with_norms) - set(without) == base
    norm = r"base\..*(norm|ln_\w|LayerNorm)\.(weight|bias)"
    assert base == {f"base.{key}" for key, _ in tiny(name).named_parameters() if re.fullmatch(norm, f"base.{key}")}


@pytest.mark.parametrize(("name", "count"), [("llama", 5), ("gpt2", 10), ("bert", 10), ("t5", 12)])
def test_every_norm_is_found(name: str, count: int) -> None:
    # LLaMA 2·2+1 gains; GPT-2 2·2+1 norms of two; BERT 1+2·2 norms of two; T5 2·2+1 in the encoder, 2·3+1 in the decoder
    assert len(norm_parameters(tiny(name))) == count


@pytest.mark.parametrize("name", NAMES)
def test_removed_the_norms_are_the_base_models_again(name: str) -> None:
    base = tiny(name, torch.float64)
    before = logits(base, name)
    adapted = adapt(base, SerialAdapter(bottleneck=4))
    norms = {key: parameter for key, parameter in adapted.trained().items() if key.startswith("base.")}
    with torch.no_grad():
        for parameter in norms.values():
            parameter.add_(0.5)
    state = adapted.worn.state()
    assert all(torch.equal(state[key], parameter) for key, parameter in norms.items())
    assert not torch.equal(logits(adapted.model, name), before)
    adapted.remove()
    assert torch.equal(logits(base, name), before)
    assert not any(parameter.requires_grad for parameter in norms.values())


@pytest.mark.parametrize(
    "wrong",
    [{"bottleneck": 0}, {"bottleneck": 2.0}, {"bottleneck": True}, {"std": 0}, {"std": -1.0}, {"norms": "yes"}],
)
def test_bad_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"SerialAdapter: {next(iter(wrong))} is"):
        SerialAdapter(**wrong)
