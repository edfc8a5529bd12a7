from __future__ import annotations

import pytest
import torch

from adapters.training.data import Answered, Labelled, Related
from adapters.training.losses import IGNORED
from adapters.training.tasks import CausalTask, ClassificationTask, ContrastiveTask, Seq2SeqTask
from rag.core.errors import InputError
from tests.adapters.tiny import tiny
from tests.adapters.training.parts import BEGIN, END, PAD, TURN, answered, labelled, related, tokenizer

CHAT = Answered(({"role": "system", "content": "w1"}, {"role": "user", "content": "w2"}), "w3 w4")


def test_only_the_answer_and_its_end_are_scored() -> None:
    task = CausalTask(tokenizer(), 64)
    batch = task.batch(task.encode([Answered("w1 w2 w3", "w4"), Answered("w1", "w2 w3")]).examples)
    assert batch.inputs[0]["input_ids"].tolist() == [[6, 7, 8, 9, END], [6, 7, 8, END, PAD]]
    assert batch.inputs[0]["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch.targets.tolist() == [[IGNORED, IGNORED, IGNORED, 9, END], [IGNORED, 7, 8, END, IGNORED]]
    assert (batch.weight, batch.tokens) == (5, 9)


def test_a_chat_ends_as_its_template_ends_a_turn() -> None:
    example = CausalTask(tokenizer(), 64).encode([CHAT]).examples[0]
    assert example.parts == ((BEGIN, 97, 6, TURN, BEGIN, 95, 7, TURN, BEGIN, 96), (8, 9, TURN))


def test_a_template_without_an_end_takes_that_of_the_text() -> None:
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    assert CausalTask(tokenizer(template), 64).encode([CHAT]).examples[0].parts == ((6, 7), (8, 9, END))


def test_the_prompt_loses_its_beginning_and_the_answer_its_end() -> None:
    task = CausalTask(tokenizer(), 8)
    words = [f"w{n}" for n in range(20)]
    encoded = task.encode([Answered(" ".join(words), "w30 w31"), Answered("w1 w2", " ".join(words)), Answered("w1", "w2")])
    assert encoded.cut == {"prompt": 2, "answer": 1}
    assert encoded.examples[0].parts == ((20, 21, 22, 23, 24), (35, 36, END))
    assert encoded.examples[1].parts == ((7,), (5, 6, 7, 8, 9, 10, 11))
    assert all(example.length <= 8 for example in encoded.examples)


def test_padding_changes_no_loss() -> None:
    task, model = CausalTask(tokenizer(), 64), tiny("llama", torch.float64)
    rows = task.encode(answered(5)).examples
    together = task.loss(model, task.batch(rows))
    alone = sum(task.loss(model, task.batch([row])) for row in rows)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)  # LLaMA's RMSNorm computes in float32


def test_a_decoder_of_its_own_reads_the_prompt_by_its_encoder() -> None:
    task, model = Seq2SeqTask(tokenizer(), 8), tiny("t5", torch.float64)
    encoded = task.encode([Answered("w1 w2", "w3"), Answered(" ".join(["w1"] * 9), "w2 w3")])
    assert encoded.cut == {"prompt": 1}
    batch = task.batch(encoded.examples)
    assert batch.targets.tolist() == [[8, END, IGNORED], [7, 8, END]]
    torch.testing.assert_close(task.loss(model, batch) / batch.weight, model(**batch.inputs[0], labels=batch.targets).loss)


def test_labels_are_numbered_in_the_order_given() -> None:
    task = ClassificationTask(tokenizer(), 8, ("c", "a", "b"))
    encoded = task.encode([*labelled(3), Labelled(" ".join(["w1"] * 20), "w2 w3", "a")])
    assert [example.label for example in encoded.examples] == [1, 2, 0, 1]
    assert encoded.cut == {"text": 1}
    assert encoded.examples[3].length == 8
    assert {7, 8} <= set(encoded.examples[3].parts[0])  # the longer text was cut
    batch = task.batch(encoded.examples)
    assert batch.weight == 4
    assert float(task.loss(tiny("bert"), batch).detach()) > 0


def test_a_passage_that_is_the_positive_is_no_negative() -> None:
    task = ContrastiveTask(tokenizer(), 64)
    rows = [Related("w1", "w2", ("w3",)), Related("w4", "w2", ("w5",)), Related("w6", "w7", ("w2", "w8"))]
    batch = task.batch(task.encode(rows).examples)
    assert batch.inputs[1]["input_ids"][:, 0].tolist() == [7, 7, 12, 8, 10, 7, 13]
    assert batch.targets.tolist() == [
        [True, False, True, True, True, False, True],
        [False, True, True, True, True, False, True],
        [True, True, True, True, True, True, True],
    ]
    assert batch.weight == 3


def test_the_encoders_loss_falls_with_the_distance() -> None:
    task, model = ContrastiveTask(tokenizer(), 64), tiny("bert", torch.float64).bert
    near = [Related("w1 w2", "w1 w2", ("w60 w61",)), Related("w8", "w8", ("w70",))]
    far = [Related("w1 w2", "w60 w61", ("w1 w2",)), Related("w8", "w70", ("w8",))]
    losses = [float(task.loss(model, task.batch(task.encode(rows).examples)).detach()) for rows in (near, far)]
    assert losses[0] < losses[1]


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="no end-of-text token"):
        CausalTask(tokenizer(end=False), 64)
    with pytest.raises(InputError, match="no chat template"):
        CausalTask(tokenizer(template=None), 64).encode([CHAT])
    with pytest.raises(InputError, match="max_tokens is a whole number from 8, not 7"):
        CausalTask(tokenizer(), 7)
    with pytest.raises(InputError, match="holds texts and labels, and this model learns from prompts and answers"):
        CausalTask(tokenizer(), 64).encode(labelled(1))
    with pytest.raises(InputError, match="two labels or more"):
        ClassificationTask(tokenizer(), 64, ["a"])
    with pytest.raises(InputError, match="'d' is none of the classes that are trained: a, b"):
        ClassificationTask(tokenizer(), 64, ["a", "b"]).encode([Labelled("w1", None, "d")])
    with pytest.raises(InputError, match="this model learns from questions and passages"):
        ContrastiveTask(tokenizer(), 64).encode(answered(1))
    with pytest.raises(InputError, match="this model learns from texts and labels"):
        ClassificationTask(tokenizer(), 64, ["a", "b"]).encode(list(related(1)))
