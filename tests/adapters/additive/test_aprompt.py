"""Options, cost, what is refused, and what stays."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from adapters import adapt
from adapters.additive.aprompt.attention import PromptedConfig
from adapters.additive.aprompt.config import APrompt
from rag.core.errors import AdapterError, InputError
from tests.adapters.tiny import NAMES, batch_for, tiny


class Homemade(torch.nn.Module):
    """An attention that computes by itself."""


def attention(model: Any, name: str) -> Any:
    paths = {"llama": "model.layers.0.self_attn", "gpt2": "transformer.h.0.attn", "bert": "bert.encoder.layer.0.attention.self"}
    return model.get_submodule({**paths, "t5": "encoder.block.0.layer.0.SelfAttention"}[name])


def logits(model: Any, name: str) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch_for(name)).logits.clone()


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", NAMES)
def test_with_all_lengths_zero_the_model_is_the_base_model(name: str, implementation: str) -> None:
    model = tiny(name, torch.float64)
    model.set_attn_implementation(implementation)
    base = logits(model, name)
    worn = APrompt(0, 0, 0).attach(model)
    assert isinstance(attention(model, name).config, PromptedConfig)
    assert torch.equal(logits(model, name), base)
    assert worn.trained() == {}


def test_with_all_lengths_zero_nothing_trains() -> None:
    model = tiny("llama")
    with pytest.raises(AdapterError, match="nothing to train"):
        adapt(model, APrompt(0, 0, 0))
    assert attention(model, "llama").config is model.config


@pytest.mark.parametrize(("name", "layers", "kv"), [("llama", 2, 16), ("gpt2", 2, 32), ("bert", 2, 32), ("t5", 2, 32)])
def test_the_cost(name: str, layers: int, kv: int) -> None:
    adapted = adapt(tiny(name), APrompt(5, 3, 2), head=())
    assert sum(p.numel() for p in adapted.trained().values()) == layers * (5 * 32 + 3 * kv + 2 * 2 * kv)


def test_only_the_encoder_of_an_encoder_decoder_wears_it() -> None:
    assert all(key.startswith("encoder.") for key in adapt(tiny("t5"), APrompt()).trained())


@pytest.mark.parametrize(("lengths", "sets"), [((1, 0, 0), {"input"}), ((0, 1, 0), {"query_key"}), ((0, 0, 1), {"key", "value"})])
def test_a_set_of_length_zero_is_not_there(lengths: tuple[int, int, int], sets: set[str]) -> None:
    model = tiny("bert", torch.float64)
    base = logits(model, "bert")
    adapted = adapt(model, APrompt(*lengths), head=())
    assert {key.rpartition(".")[2] for key in adapted.trained()} == sets
    assert not torch.equal(logits(adapted.model, "bert"), base)


@pytest.mark.parametrize("name", NAMES)
def test_the_models_own_config_stays(name: str) -> None:
    model = tiny(name)
    config, written = model.config, model.config.to_dict()
    adapted = adapt(model, APrompt())
    assert model.config is config
    assert (config._attn_implementation, config.to_dict()) == ("sdpa", written)
    adapted.remove()
    assert attention(model, name).config is not None
    assert type(attention(model, name).config) is type(config)


@pytest.mark.parametrize("name", NAMES)
def test_the_attention_function_can_be_changed_while_worn(name: str) -> None:
    adapted = adapt(tiny(name, torch.float64), APrompt(3, 2, 2, std=0.5))
    sdpa = logits(adapted.model, name)
    adapted.model.set_attn_implementation("eager")
    torch.testing.assert_close(logits(adapted.model, name), sdpa, rtol=0, atol=1e-6)  # LLaMA's softmax computes in float32
    batch = {key: value for key, value in batch_for(name).items() if key != "labels"}
    if name != "t5":
        weights = adapted.model(**batch, output_attentions=True).attentions[0]
        assert weights.shape[-1] == 7 + 7  # tokens, and 3 + 2 + 2 prompts
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), rtol=0, atol=1e-6)


def test_an_attention_function_without_room_is_refused() -> None:
    model = tiny("llama")
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(AdapterError, match=r"'flex_attention'.*'eager' or 'sdpa'"):
        adapt(model, APrompt())
    assert attention(model, "llama").config is model.config
    model.config._attn_implementation = "sdpa"
    adapted = adapt(model, APrompt())
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(AdapterError, match="'flex_attention'"):
        attention(adapted.model, "llama")(torch.zeros(1, 2, 32))


def test_an_attention_of_its_own_is_refused_and_nothing_is_left() -> None:
    model = tiny("llama")
    last = model.model.layers[1].self_attn
    last.__class__ = Homemade
    with pytest.raises(AdapterError, match="Homemade does not call"):
        adapt(model, APrompt())
    assert attention(model, "llama").config is model.config
    assert not attention(model, "llama")._forward_pre_hooks


def test_an_attention_that_passes_the_prompts_by_is_told() -> None:
    adapted = adapt(tiny("llama"), APrompt())
    layer = attention(adapted.base, "llama")
    layer.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(AdapterError, match="no effect"):
        adapted.model(**batch_for("llama"))


def test_gpt2_with_reordered_attention() -> None:
    model = tiny("gpt2")
    model.set_attn_implementation("eager")
    for block in model.transformer.h:
        block.attn.reorder_and_upcast_attn = True
    with pytest.raises(AdapterError, match="reorder_and_upcast_attn"):
        adapt(model, APrompt())
    model.set_attn_implementation("sdpa")
    adapt(model, APrompt())


@pytest.mark.parametrize("wrong", [{"input_length": -1}, {"query_key_length": 2.0}, {"key_value_length": True}, {"std": -0.1}])
def test_bad_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"APrompt: {next(iter(wrong))} is"):
        APrompt(**wrong)
