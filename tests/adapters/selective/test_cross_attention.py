"""Cross-attention tuning: the set of names that train, on each architecture that has cross-attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import adapt, load
from adapters.selective.cross_attention.config import CrossAttention
from rag.core.errors import AdapterError, InputError
from tests.adapters.selective.steps import moved, take_steps, values
from tests.adapters.tiny import tiny


def marian() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.MarianConfig(
        vocab_size=100, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=48, encoder_attention_heads=4,
        decoder_attention_heads=4, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, max_position_embeddings=32,
    )  # fmt: skip
    return transformers.MarianMTModel(config).eval()


def bert_decoder() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, is_decoder=True,
        add_cross_attention=True,
    )  # fmt: skip
    return transformers.BertLMHeadModel(config).eval()


def gpt2_decoder() -> Any:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64, add_cross_attention=True, bos_token_id=1, eos_token_id=2
    )
    return transformers.GPT2LMHeadModel(config).eval()


MODELS = {
    "t5": (lambda: tiny("t5"), "EncDecAttention", "decoder.block.{}.layer.1.layer_norm."),
    "marian": (marian, "encoder_attn", "model.decoder.layers.{}.encoder_attn_layer_norm."),
    "bert": (bert_decoder, "crossattention", "bert.encoder.layer.{}.crossattention.output.LayerNorm."),
    "gpt2": (gpt2_decoder, "crossattention", "transformer.h.{}.ln_cross_attn."),
}


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("on", list(MODELS))
def test_cross_attention_trains_and_nothing_else(on: str, norm: bool) -> None:
    make, kind, norms = MODELS[on]
    model = make()
    adapted = adapt(model, CrossAttention(norm=norm))
    beside = tuple(norms.format(layer) for layer in range(2))
    inside = {name for name, _ in model.named_parameters() if f".{kind}." in name and not name.startswith(beside)}
    of_norm = {name for name, _ in model.named_parameters() if name.startswith(beside)}
    assert inside
    assert of_norm
    expected = inside | of_norm if norm else inside
    assert set(adapted.trained()) == expected
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == expected


def test_all_four_projections_move_in_every_block_of_the_decoder() -> None:
    adapted = adapt(tiny("t5", torch.float64), CrossAttention())
    before = values(adapted.base)
    take_steps(adapted, "t5")
    expected = {f"decoder.block.{block}.layer.1.EncDecAttention.{part}.weight" for block in range(2) for part in "qkvo"}
    assert set(moved(before, adapted.base)) == expected | {f"decoder.block.{block}.layer.1.layer_norm.weight" for block in range(2)}


@pytest.mark.parametrize("name", ["shared", "encoder.embed_tokens", "decoder.embed_tokens"])
def test_a_shared_embedding_trains_by_any_of_its_names(name: str) -> None:
    adapted = adapt(tiny("t5"), CrossAttention(embeddings=(name,)))
    assert set(adapted.trained()) - set(adapt(tiny("t5"), CrossAttention()).trained()) == {"shared.weight"}


def test_the_embeddings_of_one_side_train_where_they_are_its_own() -> None:
    adapted = adapt(gpt2_decoder(), CrossAttention(embeddings=("wte",)))
    plain = adapt(gpt2_decoder(), CrossAttention())
    assert set(adapted.trained()) - set(plain.trained()) == {"transformer.wte.weight"}


def test_embeddings_are_saved_loaded_and_taken_off(tmp_path: Path) -> None:
    method = CrossAttention(embeddings=("shared",))
    adapted = adapt(tiny("t5"), method)
    take_steps(adapted, "t5")
    adapted.save(tmp_path / "saved")
    again = load(tiny("t5"), tmp_path / "saved")
    assert again.method == method
    assert not moved(values(adapted.base), again.base)
    assert "shared.weight" in moved(values(tiny("t5")), again.base)
    assert not moved(values(tiny("t5")), again.remove())


@pytest.mark.parametrize("on", ["llama", "gpt2", "bert"])
def test_a_model_without_it_is_refused_with_what_was_looked_for(on: str) -> None:
    with pytest.raises(AdapterError, match="looked for modules called EncDecAttention, encoder_attn, crossattention"):
        adapt(tiny(on), CrossAttention())


def test_an_unknown_embedding_is_refused_with_those_there_are() -> None:
    with pytest.raises(AdapterError, match=r"'embed_french'; it has .*encoder\.embed_tokens"):
        adapt(tiny("t5"), CrossAttention(embeddings=("embed_french",)))


@pytest.mark.parametrize("embeddings", ["shared", ["shared"], ("",), (1,)])
def test_embeddings_are_a_tuple_of_names(embeddings: Any) -> None:
    with pytest.raises(InputError, match="embeddings"):
        CrossAttention(embeddings=embeddings)


def test_norm_is_true_or_false() -> None:
    with pytest.raises(InputError, match="norm"):
        CrossAttention(norm="no")  # type: ignore[arg-type]
