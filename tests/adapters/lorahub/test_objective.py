from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from adapters.lorahub.composition import WornStack, read_stack
from adapters.lorahub.examples import batches, prompt_text, read_examples
from adapters.lorahub.objective import Objective, answer_losses, cross_entropy, evaluating, penalty
from adapters.training.data import Answered
from adapters.training.losses import causal_loss
from rag.core.errors import InputError
from tests.adapters.lorahub.parts import Numbers, saved
from tests.adapters.tiny import batch_for, tiny

FEW = [Answered("5 6 7", "8 9"), Answered("10 11", "12 13 14 15"), Answered("20 21 22 23", "24")]


@pytest.mark.parametrize("on", ["llama", "gpt2", "t5"])
def test_it_is_the_mean_loss_of_the_models_own(on: str) -> None:
    model, batch = tiny(on, torch.float64), batch_for(on)
    with torch.no_grad():
        expected = float(model(**batch).loss)
    assert cross_entropy(model, [batch]) == pytest.approx(expected, abs=2e-6)  # transformers computes its loss in float32


@pytest.mark.parametrize("on", ["llama", "gpt2", "t5"])
def test_the_batch_does_not_change_it(on: str) -> None:
    model = tiny(on, torch.float64)
    losses = [cross_entropy(model, batches(model, Numbers(), FEW, size, 64)) for size in (1, 2, 3)]
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-6)  # padding shifts what the norm computes in float32


class AllLogits(nn.Module):
    """A model whose ``forward`` cannot leave logits out."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool) -> Any:
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=use_cache)


@pytest.mark.parametrize("on", ["llama", "gpt2"])
def test_the_output_head_reads_the_answers_only_and_the_loss_is_that_of_all_logits(on: str) -> None:
    model = tiny(on, torch.float64)
    (batch,) = batches(model, Numbers(), FEW, 5, 64)
    read: list[torch.Size] = []
    handle = model.get_output_embeddings().register_forward_hook(lambda module, given, made: read.append(made.shape))
    found, counts = answer_losses(model, batch)
    handle.remove()
    with torch.no_grad():
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = [float(causal_loss(logits[row : row + 1], batch["labels"][row : row + 1])) for row in range(3)]
    assert read == [(3, 5, 100)]  # of 8 places: those that foretell the answers of the three rows
    assert counts.tolist() == [3, 5, 2]
    assert found.tolist() == pytest.approx(expected, abs=1e-12)
    without, _ = answer_losses(AllLogits(model), batch)
    assert without.tolist() == pytest.approx(expected, abs=1e-12)


def test_only_the_answer_and_its_end_are_learnt() -> None:
    (batch,) = batches(tiny("llama"), Numbers(), FEW[:2], 5, 64)
    assert batch["input_ids"].tolist() == [[1, 5, 6, 7, 8, 9, 2, 0], [1, 10, 11, 12, 13, 14, 15, 2]]
    assert batch["attention_mask"].tolist() == [[1] * 7 + [0], [1] * 8]
    assert batch["labels"].tolist() == [[-100] * 4 + [8, 9, 2, -100], [-100] * 3 + [12, 13, 14, 15, 2]]


def test_an_encoder_decoder_reads_the_prompt_and_writes_the_answer() -> None:
    (batch,) = batches(tiny("t5"), Numbers(), FEW[:1], 5, 64)
    assert (batch["input_ids"].tolist(), batch["labels"].tolist()) == ([[1, 5, 6, 7]], [[8, 9, 2]])


def test_the_penalty_of_the_code_and_of_the_paper() -> None:
    assert penalty([0.5, -1.5, 0.0, 1.0], "mean") == 0.75
    assert penalty([0.5, -1.5, 0.0, 1.0], "sum") == 3.0


def test_it_is_loss_and_penalty(tmp_path: Path) -> None:
    worn = WornStack(tiny("llama", torch.float64), read_stack([saved(tmp_path / "one"), saved(tmp_path / "two", seed=2)]))
    made = Objective(worn, [batch_for("llama")], strength=0.1, norm="sum")
    loss = made.loss([0.5, -1.0])
    assert loss != made.loss([0.0, 0.0])
    assert made([0.5, -1.0]) == loss + 0.1 * 1.5
    assert all(parameter.grad is None for parameter in worn.adapted.model.parameters())


def test_modes_are_given_back() -> None:
    model = tiny("llama").train()
    model.model.layers[0].eval()
    before = [module.training for module in model.modules()]
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == before
    assert any(before)
    assert not all(before)


def test_examples_are_read_by_line(tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text('{"prompt": "5 6", "answer": "7"}\n\n{"prompt": [{"role": "user", "content": "9"}], "answer": "8"}\n')
    one, two = read_examples(file)
    assert one == Answered("5 6", "7")
    assert (prompt_text(one), prompt_text(two)) == ("5 6", "9")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no example"),
        ("{", ":1: this is not JSON"),
        ('{"prompt": "a", "answer": "b"}\n["a"]', ":2: a line is"),
        ('{"prompt": "a", "answer": ""}', ":1: "),
        ('{"text": "a", "label": "b"}', "LoRAHub learns from lines of"),
    ],
)
def test_bad_files_of_examples_name_the_line(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_examples(file)
    assert str(file) in str(caught.value)


def test_bad_examples() -> None:
    model = tiny("llama")
    with pytest.raises(InputError, match="no such file"):
        read_examples("/nowhere.jsonl")
    with pytest.raises(InputError, match="example 2 has 8 tokens"):
        batches(model, Numbers(), FEW, 5, 7)
    with pytest.raises(InputError, match="there are no examples"):
        batches(model, Numbers(), [], 5, 64)
    endless = Numbers()
    endless.eos_token_id = None  # type: ignore[assignment]
    with pytest.raises(InputError, match="no end-of-text token"):
        batches(model, endless, FEW, 5, 64)
