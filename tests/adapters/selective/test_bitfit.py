"""BitFit: biases and nothing else, and biases for models that have none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import adapt, load
from adapters.anatomy import linears
from adapters.contract import Merges
from adapters.selective.bitfit.config import BitFit
from rag.core.errors import AdapterError, InputError
from tests.adapters.selective.steps import moved, take_steps, values
from tests.adapters.tiny import batch_for, tiny


def qwen2() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
    )
    return transformers.Qwen2ForCausalLM(config).eval()


@pytest.mark.parametrize("on", ["gpt2", "bert"])
def test_every_bias_moves_and_nothing_else(on: str) -> None:
    adapted = adapt(tiny(on, torch.float64), BitFit())
    before = values(adapted.base)
    take_steps(adapted, on)
    where = {name: mask for name, mask in moved(before, adapted.base).items() if not name.startswith("classifier.")}
    assert set(where) == {name for name in before if name.endswith(".bias") and not name.startswith("classifier.")}


def test_the_count_is_that_of_the_biases_and_the_head() -> None:
    adapted = adapt(tiny("bert"), BitFit())
    biases = sum(parameter.numel() for name, parameter in adapted.base.named_parameters() if name.endswith(".bias"))
    assert adapted.report().trained == biases + 3 * 32
    assert "classifier.bias" not in adapted.worn.trained()


def test_the_subset_is_the_query_and_the_first_of_the_feed_forward() -> None:
    adapted = adapt(tiny("bert"), BitFit(subset="query_and_ffn"))
    parts = ("attention.self.query", "intermediate.dense")
    assert set(adapted.worn.trained()) == {f"bert.encoder.layer.{layer}.{part}.bias" for layer in range(2) for part in parts}


def test_a_bias_of_query_key_and_value_in_one_is_refused() -> None:
    with pytest.raises(AdapterError, match=r"c_attn .* subset='all'"):
        adapt(tiny("gpt2"), BitFit(subset="query_and_ffn"))


@pytest.mark.parametrize("subset", ["all", "query_and_ffn"])
@pytest.mark.parametrize("on", ["llama", "t5"])
def test_a_model_without_biases_is_refused_with_the_option(on: str, subset: Any) -> None:
    with pytest.raises(AdapterError, match=r"looked for parameters called bias in .*add=True"):
        adapt(tiny(on), BitFit(subset=subset))


def test_qwen2_has_biases_of_query_key_and_value_only() -> None:
    names = set(adapt(qwen2(), BitFit()).trained())
    assert names == {f"model.layers.{layer}.self_attn.{part}_proj.bias" for layer in range(2) for part in "qkv"}


@pytest.mark.parametrize("on", ["llama", "t5"])
def test_added_biases_start_at_nothing_and_all_move(on: str) -> None:
    base = tiny(on)
    with torch.no_grad():
        expected = base(**batch_for(on)).logits
    before = values(base)
    adapted = adapt(base, BitFit(add=True))
    with torch.no_grad():
        assert torch.equal(adapted.model(**batch_for(on)).logits, expected)
    assert set(adapted.trained()) == {f"{name}.bias" for name, _ in linears(base)}
    take_steps(adapted, on)
    assert all((bias != 0).any() for bias in adapted.trained().values())
    with torch.no_grad():
        assert not torch.equal(adapted.model(**batch_for(on)).logits, expected)
        taken_off = adapted.remove()
        assert torch.equal(taken_off(**batch_for(on)).logits, expected)
    assert set(values(taken_off)) == set(before)
    assert not moved(before, taken_off)


def test_an_added_bias_does_what_a_bias_of_the_layer_does() -> None:
    adapted = adapt(tiny("llama", torch.float64), BitFit(add=True))
    name = "model.layers.1.mlp.down_proj"
    layer: Any = adapted.base.get_submodule(name)
    value = torch.randn(32, dtype=torch.float64)
    with torch.no_grad():
        adapted.trained()[f"{name}.bias"].copy_(value)
    x = torch.randn(2, 48, dtype=torch.float64)
    torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, layer.weight, value), rtol=0, atol=1e-14)


def test_beside_added_biases_the_models_own_train_too(tmp_path: Path) -> None:
    adapted = adapt(qwen2(), BitFit(add=True))
    assert set(adapted.trained()) == {f"{name}.bias" for name, _ in linears(adapted.base)}
    before = values(qwen2())
    take_steps(adapted, "llama")
    adapted.save(tmp_path / "saved")
    again = load(qwen2(), tmp_path / "saved")
    for name, bias in adapted.worn.state().items():
        assert torch.equal(again.worn.state()[name], bias)
    with torch.no_grad():
        assert torch.equal(again.model(**batch_for("llama")).logits, adapted.model(**batch_for("llama")).logits)
    assert not moved(before, again.remove())


def test_added_biases_of_the_subset() -> None:
    adapted = adapt(tiny("llama"), BitFit(subset="query_and_ffn", add=True))
    parts = ("self_attn.q_proj", "mlp.gate_proj", "mlp.up_proj")
    assert set(adapted.trained()) == {f"model.layers.{layer}.{part}.bias" for layer in range(2) for part in parts}


def test_added_biases_go_where_the_model_goes() -> None:
    adapted = adapt(tiny("llama"), BitFit(add=True))
    adapted.base.to(torch.bfloat16)
    assert {bias.dtype for bias in adapted.trained().values()} == {torch.bfloat16}
    assert torch.isfinite(adapted.model(**batch_for("llama")).logits).all()


def test_added_biases_cannot_be_merged_and_a_models_own_can() -> None:
    added = adapt(tiny("llama"), BitFit(add=True))
    assert added.exports() == ()
    with pytest.raises(AdapterError, match="cannot be merged"):
        added.merged()
    assert isinstance(adapt(tiny("bert"), BitFit(add=True)).worn, Merges)  # there was nothing to add


@pytest.mark.parametrize("options", [{"subset": "key"}, {"add": "yes"}])
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        BitFit(**options)
