"""P-tuning: the network, the vectors before the input, and models that cannot take them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from adapters.adapted import Adapted, adapt, load
from adapters.additive.p_tuning.config import PTuning
from rag.core.errors import AdapterError, InputError
from tests.adapters.additive.test_prefix_tuning import KEY, logits, other_start
from tests.adapters.tiny import NAMES, batch_for, tiny


def prompted_with(base: Any, tokens: Tensor) -> Adapted:
    """``base`` with the embeddings of ``tokens`` [1, l] for a prompt."""
    adapted = adapt(base, PTuning(length=tokens.shape[1]))
    adapted.worn.load_state({KEY: base.get_input_embeddings()(tokens)[0].detach()})
    return adapted


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["lstm", "mlp"])
def test_the_kept_vectors_do_what_the_network_did(name: str, form: str) -> None:
    adapted = adapt(tiny(name), PTuning(length=5, reparameterisation=form))
    made, state = logits(adapted.model, **batch_for(name)), adapted.worn.state()
    assert {key: value.shape for key, value in state.items()} == {KEY: (5, 32)}
    other = other_start(name, PTuning(length=5, reparameterisation=form))
    assert not torch.equal(logits(other.model, **batch_for(name)), made)
    other.worn.load_state(state)
    assert torch.equal(logits(other.model, **batch_for(name)), made)
    assert len(other.worn.trained()) == 1


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_embeddings_of_real_tokens_are_these_tokens(name: str) -> None:
    base = tiny(name)
    start, rest = torch.tensor([[5, 17, 42]]), torch.tensor([[8, 3, 77, 21]])
    expected = logits(base, input_ids=torch.cat([start, rest], dim=1))
    assert torch.allclose(logits(prompted_with(base, start).model, input_ids=rest), expected, atol=1e-6)


def test_embeddings_of_real_tokens_before_an_encoder() -> None:
    base = tiny("t5")
    batch = batch_for("t5")
    start = torch.tensor([[5, 17, 42]])
    longer = {
        "input_ids": torch.cat([start.expand(3, -1), batch["input_ids"]], dim=1),
        "attention_mask": torch.cat([torch.ones(3, 3, dtype=torch.long), batch["attention_mask"]], dim=1),
    }
    expected = logits(base, labels=batch["labels"], **longer)
    assert torch.allclose(logits(prompted_with(base, start).model, **batch), expected, atol=1e-6)
    bert = tiny("bert")
    expected = logits(bert, **longer)
    assert torch.allclose(logits(prompted_with(bert, start).model, **{key: batch[key] for key in longer}), expected, atol=1e-6)


def test_labels_stay_with_their_tokens() -> None:
    base = tiny("llama")
    batch = batch_for("llama")
    start = torch.tensor([[5, 17, 42]])
    longer = torch.cat([start.expand(3, -1), batch["input_ids"]], dim=1)
    mask = torch.cat([torch.ones(3, 3, dtype=torch.long), batch["attention_mask"]], dim=1)
    labels = torch.cat([torch.full((3, 3), -100), batch["labels"]], dim=1)
    with torch.no_grad():
        expected = base(input_ids=longer, attention_mask=mask, labels=labels).loss
        assert torch.allclose(prompted_with(base, start).model(**batch).loss, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("form", "hidden", "expected"),
    [
        # two layers, two directions, four gates of 16: input 32 in both layers, as two directions of 16 make 32
        ("lstm", None, 5 * 32 + 2 * 2 * 4 * 16 * (32 + 16 + 2) + 2 * (32 * 32 + 32)),
        ("lstm", 8, 5 * 32 + 2 * 4 * 4 * (32 + 4 + 2) + 2 * 4 * 4 * (8 + 4 + 2) + (8 * 8 + 8) + (8 * 32 + 32)),
        ("mlp", None, 5 * 32 + 3 * (32 * 32 + 32)),
        ("mlp", 7, 5 * 32 + (32 * 7 + 7) + (7 * 7 + 7) + (7 * 32 + 32)),
    ],
)
@pytest.mark.parametrize("layers", [1, 4])
def test_size_of_the_network_does_not_depend_on_the_depth(form: str, hidden: int | None, expected: int, layers: int) -> None:
    config = transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=layers, n_head=4, n_positions=64)
    adapted = adapt(transformers.GPT2LMHeadModel(config), PTuning(length=5, reparameterisation=form, hidden=hidden))
    assert adapted.report().trained == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["lstm", "mlp"])
def test_gradients_reach_every_vector(name: str, form: str) -> None:
    adapted = adapt(tiny(name), PTuning(length=5, reparameterisation=form))
    adapted.model(**batch_for(name)).loss.backward()
    table = adapted.worn.trained()["embedding.weight"]
    assert table.shape[0] == 5
    assert table.grad is not None
    assert table.grad.any(dim=1).all()


@pytest.mark.filterwarnings("ignore:Position ids are not supported")
def test_generates_as_it_predicts() -> None:
    adapted = adapt(tiny("llama"), PTuning(length=5))
    adapted.worn.load_state({KEY: 3 * torch.randn(5, 32)})
    ids = text = torch.tensor([[5, 17, 42, 8], [3, 77, 21, 9]])
    for _ in range(5):
        text = torch.cat([text, logits(adapted.model, input_ids=text)[:, -1:].argmax(-1)], dim=1)
    model: Any = adapted.model
    made = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    assert torch.equal(made, text)


@pytest.mark.parametrize("name", ["llama", "gpt2", "t5"])
@pytest.mark.parametrize("form", ["lstm", "mlp"])
def test_peft_reads_what_is_saved(name: str, form: str, tmp_path: Path) -> None:
    import peft

    adapted = adapt(tiny(name), PTuning(length=5, reparameterisation=form))
    expected = logits(adapted.model, **batch_for(name))
    adapted.save(tmp_path / "saved")
    assert torch.equal(logits(load(tiny(name), tmp_path / "saved").model, **batch_for(name)), expected)
    again = peft.PeftModel.from_pretrained(tiny(name), tmp_path / "saved")
    assert torch.equal(logits(again, **batch_for(name)), expected)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("BertForTokenClassification", "labels no longer fit"),
        ("BertForQuestionAnswering", "labels no longer fit"),
        ("LlamaForSequenceClassification", "the last token that is no padding"),
        ("BertForMaskedLM", "is none of them"),
    ],
)
def test_models_that_cannot_take_a_prompt_are_refused(kind: str, reason: str) -> None:
    config = getattr(transformers, f"{kind.partition('For')[0]}Config")(
        vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=2
    )
    with pytest.raises(AdapterError, match=reason):
        adapt(getattr(transformers, kind)(config), PTuning())


@pytest.mark.parametrize(
    "given", [{"length": 0}, {"reparameterisation": "none"}, {"hidden": 0}, {"hidden": 7}, {"reparameterisation": "LSTM"}]
)
def test_bad_options(given: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="PTuning"):
        PTuning(**given)
