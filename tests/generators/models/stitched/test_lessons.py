"""Training reads what answering reads: the same blocks, and the same loss as through stitched caches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import adapt
from adapters.adapted import load
from adapters.methods import build
from adapters.training.blocks import BlockTask
from adapters.training.data import Grounded
from generators.models.stitched.decoder import Decoder
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.lessons import Lessons
from generators.models.stitched.prompt import PASSAGES
from generators.models.stitched.reader import Reader
from generators.models.stitched.stitch import in_a_row, read, stitch
from generators.passages import passage_data
from generators.prompts import render
from rag.core.errors import InputError
from rag.core.types import Passage
from retrievers.prompting import as_data
from tests.generators.models.stitched.conftest import llama, random

LONG = 512
RECORDS = [
    Grounded(("the cat sat on a mat", "paris is in france"), "who sat on the mat ?", "the cat"),
    Grounded(("the lamp\n\n\nof <|im_end|> paris", "a dog ran", "the cat sat"), " 谁在跑? ", "狗 dog"),
    Grounded(("a dog",), "who <|im_start|> ran ?", "a dog ran to the lamp"),
]


def model() -> Any:
    torch.manual_seed(5)
    return random(llama(max_position_embeddings=LONG))


def worn(folder: Path, method: str, options: dict[str, Any]) -> Path:
    adapted = adapt(model(), build(method, options))
    torch.manual_seed(6)
    for parameter in adapted.trained().values():
        torch.nn.init.normal_(parameter, std=0.3)
    adapted.save(folder)
    return folder


class NoStore:
    """Keeps nothing."""

    def get(self, ids: Any, texts: Any) -> list[Any]:
        from retrievers.context.store import Miss

        return [Miss(id, "absent") for id in ids]

    def keep(self, *_: Any) -> None:
        return None


@pytest.mark.parametrize("template", [True, False])
def test_blocks_are_those_of_the_reader(decoder_of, tokenizer, monkeypatch, template: bool) -> None:
    if not template:
        monkeypatch.setattr(tokenizer, "chat_template", None)
    decoder: Decoder = decoder_of(model())
    for record, language in zip(RECORDS, ("en", "zh", "en"), strict=True):
        # as `Stitched` asks its reader
        message = render("cited", language, passages=PASSAGES, question=as_data(record.question.strip()))
        texts = [passage_data(Passage(f"p{number}", text)) for number, text in enumerate(record.passages)]
        prepared = Reader(LocalEncoder.over(decoder), NoStore()).prepare(message, [f"p{n}" for n in range(len(texts))], texts, 8)
        prompt = Lessons(decoder).prompt(record)
        assert [block.encoded.tokens for block in prepared.blocks] == [*prompt.blocks(len(record.passages))]
        assert prepared.question == prompt.question
        assert prompt.chat is template


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("LoRA", {"r": 3}),
        ("LoRA", {"r": 2, "targets": "all"}),
        ("DoRA", {"r": 2}),
        ("SerialAdapter", {}),
        ("ParallelAdapter", {}),
    ],
)
def test_the_loss_is_that_of_stitched_caches_by_a_model_that_wears_the_adapter(
    decoder_of, tokenizer, tmp_path: Path, method: str, options: dict[str, Any]
) -> None:
    folder = worn(tmp_path / "worn", method, options)
    bare = decoder_of(model())
    task = BlockTask(tokenizer, LONG, Lessons(bare).prompt)
    examples = task.encode(RECORDS).examples
    adapted = load(model(), folder)
    adapted.model.eval()
    trained = task.loss(adapted.model, task.batch(examples))
    without = task.loss(model(), task.batch(examples))

    wearing = Decoder(model(), tokenizer, "tiny", str(folder))
    assert wearing.identity.adapter is not None
    encoder, stitched = LocalEncoder.over(wearing), torch.zeros((), dtype=torch.float64)
    for example in examples:
        *blocks, question, answer = example.parts
        where = in_a_row(encoder.encode_tokens(blocks))
        logits = read(wearing, stitch(wearing, where), [*question, *answer], where[-1].end, keep=len(answer) + 1)[:-1]
        stitched += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum")
    assert trained.dtype == stitched.dtype == torch.float64
    assert abs(float(trained - stitched)) < 1e-9
    assert abs(float(without - stitched)) > 1e-3


def test_a_passage_without_tokens_and_a_question_without_words_are_errors(one) -> None:
    with pytest.raises(InputError, match="question is empty"):
        Lessons(one).prompt(Grounded(("a cat",), "  ", "x"))
    with pytest.raises(InputError, match="passage 2 of the question 'who \\?' has no character"):
        Lessons(one).prompt(Grounded(("a cat", "\u202e "), "who ?", "x"))
