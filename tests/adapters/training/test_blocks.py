"""Passages that do not see each other, on a model of two layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from adapters.training.blocks import BlockTask, PassagePrompt, block_addend
from adapters.training.data import Answered, Grounded
from adapters.training.losses import IGNORED
from adapters.training.tasks import CausalTask, Example
from adapters.training.trainer import train
from rag.core.errors import InputError
from tests.adapters.tiny import tiny
from tests.adapters.training.parts import END, FAST, PAD, TURN, lora, same, tokenizer, weights
from tests.generators.models.stitched.conftest import Double

BEFORE, BETWEEN = (3, 95), (94,)


@pytest.fixture
def double() -> Iterator[None]:
    with Double():
        yield


def words(text: str) -> tuple[int, ...]:
    return tuple(tokenizer()(text)["input_ids"])


def prompt(record: Grounded) -> PassagePrompt:
    return PassagePrompt(BEFORE, tuple(map(words, record.passages)), BETWEEN, (*words(record.question), 96), False)


def grounded(count: int = 9) -> list[Grounded]:
    """One to three passages of other lengths, and answers of one to three words."""
    return [
        Grounded(
            tuple(" ".join(f"w{(n * 5 + p * 7 + at) % 90}" for at in range(2 + (n + p) % 3)) for p in range(1 + n % 3)),
            f"w{n} w{n + 1}",
            " ".join(f"w{n + 2 + at}" for at in range(1 + n % 3)),
        )
        for n in range(count)
    ]


def task(max_tokens: int = 64, apart: bool = True) -> BlockTask:
    return BlockTask(tokenizer(), max_tokens, prompt, apart)


def rows(records: Sequence[Grounded]) -> list[Example]:
    return task().encode(records).examples


def test_a_row_is_blocks_question_and_answer() -> None:
    examples = rows([Grounded(("w1 w2", "w3"), "w4", "w5"), Grounded(("w1",), "w2", "w3 w4")])
    assert examples[0].parts == (BEFORE, (6, 7), BETWEEN, (8,), (9, 96), (10, END))
    batch = task().batch(examples)
    inputs = batch.inputs[0]
    assert inputs["input_ids"].tolist() == [[3, 95, 6, 7, 94, 8, 9, 96, 10, END], [3, 95, 6, 7, 96, 8, 9, END, PAD, PAD]]
    assert inputs["blocks"].tolist() == [[1, 1, 2, 2, 3, 4, 0, 0, 0, 0], [1, 1, 2, 0, 0, 0, 0, 0, 0, 0]]
    assert inputs["position_ids"].tolist() == [list(range(10))] * 2
    assert batch.targets.tolist() == [[IGNORED] * 4 + [10, END], [IGNORED, 8, 9, END, IGNORED, IGNORED]]
    assert (batch.weight, batch.tokens) == (5, 18)


def test_a_block_sees_itself_alone_and_the_question_all() -> None:
    addend = block_addend(torch.tensor([[1, 1, 2, 0, 0]]), torch.float64)
    assert addend.shape == (1, 1, 5, 5)
    assert (addend[0, 0] == 0).int().tolist() == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert torch.softmax(addend[0, 0], -1)[2].tolist() == [0, 0, 1, 0, 0]


def test_links_stand_behind_each_passage_and_see_all_before_them() -> None:
    linked = BlockTask(tokenizer(), 64, prompt, links=(100, 101))
    examples = linked.encode([Grounded(("w1 w2", "w3"), "w4", "w5")]).examples
    assert examples[0].parts == (BEFORE, (6, 7), (100, 101), BETWEEN, (8,), (100, 101), (9, 96), (10, END))
    assert linked.batch(examples).inputs[0]["blocks"].tolist() == [[1, 1, 2, 2, 0, 0, 4, 5, 0, 0, 0, 0, 0, 0]]


def test_links_take_room_from_passages() -> None:
    record = Grounded(("w1 w2", "w3"), "w4", "w5")
    for most, kept, cut in ((14, 2, {}), (13, 1, {"passages": 1})):
        encoded = BlockTask(tokenizer(), most, prompt, links=(100, 101)).encode([record])
        assert (len(encoded.examples[0].parts) - 3) // 2 == kept
        assert encoded.cut == cut
    with pytest.raises(InputError, match="takes 8 tokens with its first passage"):
        BlockTask(tokenizer(), 8, prompt, links=(100, 101)).encode([record])


@pytest.mark.usefixtures("double")
def test_a_batch_loses_what_its_rows_lose() -> None:
    model, examples = tiny("llama", torch.float64), rows(grounded())
    together = task().loss(model, task().batch(examples))
    alone = sum(task().loss(model, task().batch([example])) for example in examples)
    assert together.dtype == torch.float64
    assert abs(float(together - alone)) < 1e-10 * abs(float(together))


@pytest.mark.usefixtures("double")
def test_a_passage_does_not_see_another() -> None:
    model = tiny("llama", torch.float64)

    def cached(first: str) -> tuple[DynamicCache, torch.Tensor]:
        (example,) = rows([Grounded((first, "w5 w6 w7"), "w8", "w9")])
        batch = task().batch([example])
        inputs, cache = dict(batch.inputs[0]), DynamicCache()
        mask = block_addend(inputs.pop("blocks"), torch.float64)
        model(**inputs, attention_mask=mask, past_key_values=cache)
        return cache, task().loss(model, batch)

    (here, loss), (there, other) = cached("w1 w2"), cached("w1 w40")
    for one, two in zip(here.layers, there.layers, strict=True):
        assert torch.equal(one.keys[:, :, 4:8], two.keys[:, :, 4:8])  # what stands between, and the second passage
        assert torch.equal(one.values[:, :, 4:8], two.values[:, :, 4:8])
    assert not torch.equal(here.layers[1].keys[:, :, 8:], there.layers[1].keys[:, :, 8:])  # the question reads both
    assert abs(float(loss - other)) > 1e-6


@pytest.mark.usefixtures("double")
def test_with_the_full_mask_it_is_ordinary_reading() -> None:
    model, records = tiny("llama", torch.float64), grounded(4)
    whole = task(apart=False)
    examples = whole.encode(records).examples
    joined = [Example((tuple(token for part in example.parts[:-1] for token in part), example.parts[-1])) for example in examples]
    plain = CausalTask(tokenizer(), 64)
    expected = float(plain.loss(model, plain.batch(joined)))
    assert abs(float(whole.loss(model, whole.batch(examples))) - expected) < 1e-10 * expected
    assert abs(float(task().loss(model, task().batch(examples))) - expected) > 1e-6


def test_passages_are_left_out_from_the_last_and_an_answer_loses_its_end() -> None:
    short = task(12)
    encoded = short.encode(
        [Grounded(("w1 w2", "w3 w4 w5", "w6"), "w7", "w8"), Grounded(("w1", "w2"), "w3", " ".join(f"w{n}" for n in range(20)))]
    )
    assert encoded.cut == {"passages": 2, "answer": 1}
    assert encoded.examples[0].parts == (BEFORE, (6, 7), BETWEEN, (8, 9, 10), (12, 96), (13, END))
    assert encoded.examples[1].parts == (BEFORE, (6,), (8, 96), (5, 6, 7, 8, 9, 10, 11))
    assert all(example.length <= 12 for example in encoded.examples)
    with pytest.raises(InputError, match="the question 'w1' takes 12 tokens with its first passage, and max_tokens is 12"):
        short.encode([Grounded(("w1 w2 w3 w4 w5 w6 w7 w8",), "w1", "w2")])


def test_a_chat_ends_as_its_template_ends_a_turn() -> None:
    def chat(record: Grounded) -> PassagePrompt:
        return PassagePrompt((), (words(record.passages[0]),), BETWEEN, words(record.question), True)

    (example,) = BlockTask(tokenizer(), 64, chat).encode([Grounded(("w1",), "w2", "w3")]).examples
    assert example.parts == ((6,), (7,), (8, TURN))


def test_other_records_are_refused() -> None:
    with pytest.raises(InputError, match="holds prompts and answers, and this model learns from passages, questions and answers"):
        task().encode([Answered("w1", "w2")])
    with pytest.raises(InputError, match="holds passages, questions and answers, and this model learns from prompts and answers"):
        CausalTask(tokenizer(), 64).encode(grounded(1))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_it_trains_by_the_one_trainer(precision: str) -> None:
    adapted, examples = lora(), rows(grounded(12))
    before = weights(adapted)
    outcome = train(adapted, task(), examples, FAST.__class__(lr=2e-2, steps=12, batch=4, precision=precision), examples[:4])
    assert not same(before, weights(adapted))
    assert outcome.held_out[-1][1] < outcome.held_out[0][1]


def test_a_stopped_run_goes_on_to_the_very_weights(tmp_path: Any) -> None:
    examples = rows(grounded(12))
    whole = lora()
    train(whole, task(), examples, FAST, folder=tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(event: Any) -> None:
        if event.step == 4:
            raise Stopped

    with pytest.raises(Stopped):
        train(lora(), task(), examples, FAST, folder=tmp_path / "parts", on_event=stop)
    again = lora()
    train(again, task(), examples, FAST, folder=tmp_path / "parts", resume=True)
    assert same(weights(whole), weights(again))
    accumulated = FAST.__class__(lr=1e-2, steps=2, batch=2, accumulate=3)
    assert train(lora(), task(), examples, accumulated).steps == 2
