"""Prefix-tuning: the network and what it makes, where the prefix stands, and models that cannot wear one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from adapters.adapted import Adapted, adapt, load
from adapters.additive.p_tuning_v2.config import PTuningV2
from adapters.additive.prefix_tuning.config import PrefixTuning
from rag.core.errors import AdapterError, InputError
from tests.adapters.tiny import NAMES, batch_for, tiny

KEY = "prompt_embeddings"


def logits(model: nn.Module, **given: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**given).logits
    return found


def other_start(name: str, method: Any) -> Adapted:
    """`tiny` with ``method``, which starts from other numbers than right behind `tiny`."""
    base = tiny(name)
    torch.manual_seed(2)
    return adapt(base, method)


def with_vectors(base: Any, vectors: Tensor) -> Adapted:
    """``base`` with the prefix ``vectors``."""
    adapted = adapt(base, PTuningV2(length=len(vectors)))
    adapted.worn.load_state({KEY: vectors})
    return adapted


@pytest.mark.parametrize("name", NAMES)
def test_the_kept_vectors_do_what_the_network_did(name: str) -> None:
    adapted = adapt(tiny(name), PrefixTuning(length=5, hidden=16))
    made, state = logits(adapted.model, **batch_for(name)), adapted.worn.state()
    assert list(state) == [KEY]
    other = other_start(name, PrefixTuning(length=5, hidden=16))
    assert not torch.equal(logits(other.model, **batch_for(name)), made)
    other.worn.load_state(state)
    assert torch.equal(logits(other.model, **batch_for(name)), made)
    assert torch.equal(other.worn.state()[KEY], state[KEY])


def test_loaded_vectors_train_themselves() -> None:
    adapted = adapt(tiny("llama"), PrefixTuning(length=5, hidden=16))
    assert len(adapted.trained()) == 5  # a table, two linear layers with biases
    vectors = adapted.worn.state()[KEY]
    adapted.worn.load_state({KEY: vectors})
    (parameter,) = adapted.trained().values()
    assert parameter.shape == vectors.shape
    adapted.model(**batch_for("llama")).loss.backward()
    assert parameter.grad is not None
    assert parameter.grad.any(dim=1).all()
    adapted.worn.load_state({KEY: vectors + 1})
    assert adapted.trained()["embedding.weight"] is parameter
    assert torch.equal(parameter, vectors + 1)


@pytest.mark.parametrize(("name", "width"), [("llama", 16), ("gpt2", 32), ("bert", 32), ("t5", 32)])
def test_size_of_network_and_vectors(name: str, width: int) -> None:
    """The tiny LLaMA has two heads of 8 for keys and values."""
    worn = adapt(tiny(name), PrefixTuning(length=5, hidden=16)).worn
    flat = 2 * 2 * width  # two layers, keys and values
    assert worn.state()[KEY].shape == (5, flat)
    assert sum(p.numel() for p in worn.trained().values()) == 5 * width + width * 16 + 16 + 16 * flat + flat


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_keys_and_values_of_real_tokens_are_these_tokens(name: str) -> None:
    base = tiny(name)
    start, rest = torch.tensor([[5, 17, 42]]), torch.tensor([[8, 3, 77, 21]])
    with torch.no_grad():
        cache = base(input_ids=start, use_cache=True).past_key_values
    layers = [part[0].transpose(0, 1).reshape(3, -1) for layer in cache.layers for part in (layer.keys, layer.values)]
    expected = logits(base, input_ids=torch.cat([start, rest], dim=1))[:, 3:]
    adapted = with_vectors(base, torch.cat(layers, dim=1))
    assert torch.allclose(logits(adapted.model, input_ids=rest), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_the_order_within_the_prefix_does_not_matter(name: str) -> None:
    vectors = torch.randn(5, 64 if name == "llama" else 128)
    one = logits(with_vectors(tiny(name), vectors).model, **batch_for(name))
    other = logits(with_vectors(tiny(name), vectors.flip(0)).model, **batch_for(name))
    assert torch.allclose(one, other, atol=1e-6)
    assert not torch.allclose(one, logits(with_vectors(tiny(name), 2 * vectors).model, **batch_for(name)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_prefix_of_zeros_is_not_nothing(name: str) -> None:
    base = tiny(name)
    before = logits(base, **batch_for(name))
    adapted = with_vectors(base, torch.zeros(5, 64 if name == "llama" else 128))
    assert not torch.allclose(logits(adapted.model, **batch_for(name)), before, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "bert"])
def test_padding_is_not_seen_behind_a_prefix(name: str) -> None:
    batch = batch_for(name)
    model = adapt(tiny(name), PrefixTuning(length=5, hidden=16)).model
    alone = logits(model, input_ids=batch["input_ids"][-1:, :-2], attention_mask=batch["attention_mask"][-1:, :-2])
    padded = logits(model, input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])[-1:]
    assert torch.allclose(padded if name == "bert" else padded[:, :-2], alone, atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_generates_as_it_predicts(name: str) -> None:
    base: Any = tiny(name)
    adapted = adapt(base, PrefixTuning(length=5, hidden=16))
    adapted.worn.load_state({KEY: 3 * adapted.worn.state()[KEY]})
    ids = torch.tensor([[5, 17, 42, 8], [3, 77, 21, 9]])
    text = torch.zeros(2, 1, dtype=torch.long) if name == "t5" else ids
    for _ in range(5):
        given = {"input_ids": ids, "decoder_input_ids": text} if name == "t5" else {"input_ids": text}
        text = torch.cat([text, logits(adapted.model, **given)[:, -1:].argmax(-1)], dim=1)
    asked: dict[str, Any] = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 5, "do_sample": False, "eos_token_id": None}
    model: Any = adapted.model
    assert torch.equal(model.generate(input_ids=ids, pad_token_id=0, **asked), text)
    plain = adapted.remove()
    assert "prepare_inputs_for_generation" not in vars(plain)
    assert not torch.equal(base.generate(input_ids=ids, pad_token_id=0, **asked), text)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
def test_peft_reads_what_is_saved(name: str, tmp_path: Path) -> None:
    import peft

    adapted = adapt(tiny(name), PrefixTuning(length=5, hidden=16))
    expected = logits(adapted.model, **batch_for(name))
    adapted.save(tmp_path / "saved")
    assert torch.equal(logits(load(tiny(name), tmp_path / "saved").model, **batch_for(name)), expected)
    again = peft.PeftModel.from_pretrained(tiny(name), tmp_path / "saved")
    assert torch.equal(logits(again, **batch_for(name)), expected)


def test_a_t5_whose_heads_do_not_fill_its_width_and_whose_decoder_is_deeper() -> None:
    config = transformers.T5Config(
        vocab_size=100,
        d_model=32,
        d_ff=48,
        d_kv=4,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
    )
    adapted = adapt(transformers.T5ForConditionalGeneration(config), PrefixTuning(length=5, hidden=16))
    assert adapted.worn.state()[KEY].shape == (5, 3 * 2 * 16)
    assert adapted.model(**batch_for("t5")).loss.isfinite()


@pytest.mark.parametrize("kind", ["BertForTokenClassification", "BertForQuestionAnswering", "RobertaForSequenceClassification"])
def test_other_heads(kind: str) -> None:
    config: Any = getattr(transformers, f"{kind.partition('For')[0]}Config")(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=2
    )
    base = getattr(transformers, kind)(config).eval()
    parts = list(base.state_dict())
    adapted = adapt(base, PrefixTuning(length=5, hidden=16))
    assert list(base.state_dict()) == parts, "PEFT leaves no second head"
    found = adapted.model(input_ids=batch_for("bert")["input_ids"])[0]
    assert found.shape[:2] == ((3, 2) if "Sequence" in kind else (3, 7))
    found.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in adapted.worn.trained().values())
    assert any(name.startswith("head.") for name in adapted.trained())


def refused(kind: str) -> nn.Module:
    sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    if kind == "Gpt2WithoutRoom":
        config: Any = transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=6)
        return transformers.GPT2LMHeadModel(config)
    if kind == "Mamba":
        return transformers.MambaForCausalLM(transformers.MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2))
    if kind == "ModernBert":
        return transformers.ModernBertForSequenceClassification(transformers.ModernBertConfig(**sizes, pad_token_id=0))
    if kind == "T5Classifier":
        return transformers.T5ForSequenceClassification(transformers.T5Config(vocab_size=100, d_model=32, d_ff=48, d_kv=8, num_layers=2))
    made: nn.Module = getattr(transformers, kind)(transformers.BertConfig(**sizes))
    return made


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("BertForMaskedLM", "BertForMaskedLM is none of them"),
        ("BertForMultipleChoice", "is none of them"),
        ("BertModel", "is none of them"),
        ("T5Classifier", "is none of them"),
        ("Mamba", "PEFT cannot put PREFIX_TUNING on it"),
        ("ModernBert", "does not support past key values"),
        ("Gpt2WithoutRoom", "cannot run with PREFIX_TUNING"),
    ],
)
def test_models_that_cannot_wear_a_prefix_are_refused(kind: str, reason: str) -> None:
    base = refused(kind)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with pytest.raises(AdapterError, match=reason):
        adapt(base, PrefixTuning(length=5, hidden=16))
    assert list(before) == list(base.state_dict())
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())


def test_a_model_that_passes_the_prefix_by_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    base = tiny("llama")
    forward = base.forward
    monkeypatch.setattr(base, "forward", lambda **given: forward(input_ids=given["input_ids"]))
    with pytest.raises(AdapterError, match="does not depend on them"):
        adapt(base, PrefixTuning(length=5, hidden=16))


def test_gradient_checkpointing_is_refused() -> None:
    base = tiny("llama")
    base.gradient_checkpointing_enable()
    with pytest.raises(AdapterError, match="gradient checkpointing"):
        adapt(base, PrefixTuning(length=5, hidden=16))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_of_the_model_stays(training: bool) -> None:
    base = tiny("bert").train(training)
    base.bert.embeddings.dropout.train(not training)
    adapted = adapt(base, PrefixTuning(length=5, hidden=16))
    assert adapted.model.training is training
    assert base.bert.embeddings.dropout.training is not training
    assert base.classifier.training is training


@pytest.mark.parametrize("given", [{"length": 0}, {"length": True}, {"length": 2.5}, {"hidden": 0}])
def test_bad_options(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="PrefixTuning"):
        PrefixTuning(**given)
