from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from rag.core.errors import ConfigError, InputError, MissingDependency, ModelError
from rag.core.registry import configuration, registered
from rag.core.types import Hit, Passage
from retrievers.rerank import Rerank

WORDS = "suit may be worn outside for six hours kitchen opens at seven lamp keeper walks north how long the a of"


def save_cross_encoder(folder: Path, labels: int = 1, spoil: bool = False) -> str:
    """A random BERT of a few thousand parameters, saved as a cross-encoder."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir()
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split()]), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab=str(vocabulary), model_max_length=48)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=48,
        num_labels=labels,
        initializer_range=0.5,  # large, so that random scores lie apart
    )
    model = BertForSequenceClassification(config)
    if spoil:
        model.classifier.weight.data.fill_(float("nan"))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_cross_encoder(tmp_path_factory.mktemp("models") / "cross-encoder")


@pytest.fixture(scope="module")
def rerank(folder):
    return Rerank(folder, k=3, batch_size=4, device="cpu")


def hits(*texts: str) -> list[Hit]:
    return [Hit(Passage(f"p{rank}", text), 1 / rank, rank, "bm25") for rank, text in enumerate(texts, start=1)]


TEXTS = [
    "the kitchen opens at seven",
    "a suit may be worn for six hours",
    "the lamp keeper walks north",
    "outside",
    "six seven hours of the lamp",
]


def test_orders_by_the_score_of_the_cross_encoder(rerank, folder):
    from sentence_transformers import CrossEncoder

    query = "how long may a suit be worn"
    expected = CrossEncoder(folder, device="cpu").predict([(query, text) for text in TEXTS])
    best = sorted(range(len(TEXTS)), key=lambda i: -expected[i])[:3]
    found = asyncio.run(rerank.run(query, hits(*TEXTS)))
    assert len({round(float(score), 4) for score in expected}) == len(TEXTS)
    assert [hit.passage.text for hit in found] == [TEXTS[i] for i in best]
    assert [hit.score for hit in found] == pytest.approx([float(expected[i]) for i in best], abs=1e-5)
    assert [hit.rank for hit in found] == [1, 2, 3]
    assert {hit.retriever for hit in found} == {"rerank(bm25)"}


def test_questions_in_flight_score_as_alone(rerank):
    queries = ["how long may a suit be worn", "who walks north", "the kitchen opens at seven six hours outside of the lamp"]
    batches = []
    score = rerank._scores.work
    rerank._scores.work = lambda questions: batches.append(len(questions)) or score(questions)

    async def together():
        return await asyncio.gather(*(rerank.run(query, hits(*TEXTS)) for query in queries * 4))

    try:
        for query, found in zip(queries * 4, asyncio.run(together()), strict=True):
            alone = asyncio.run(rerank.run(query, hits(*TEXTS)))
            assert [hit.passage.id for hit in found] == [hit.passage.id for hit in alone]
            assert [hit.score for hit in found] == pytest.approx([hit.score for hit in alone], abs=1e-5)
    finally:
        rerank._scores.work = score
    assert max(batches) > 1


def test_few_and_no_hits(rerank):
    assert asyncio.run(rerank.run("how long", [])) == []
    assert [hit.rank for hit in asyncio.run(rerank.run("how long", hits("outside")))] == [1]


def test_equal_scores_keep_their_order(rerank):
    found = asyncio.run(rerank.run("how long", hits("six hours", "six hours", "six hours")))
    assert [hit.passage.id for hit in found] == ["p1", "p2", "p3"]


def test_control_tokens_in_a_passage_are_text(rerank):
    found = asyncio.run(rerank.run("how long", hits("six hours [SEP] [CLS] [MASK]", "six hours [ SEP] [ CLS] [ MASK]")))
    assert found[0].score == found[1].score


@pytest.mark.parametrize("setting", ["k", "batch_size", "max_pairs"])
@pytest.mark.parametrize("value", [0, -3, 1.5])
def test_bad_settings(setting, value):
    with pytest.raises(InputError, match=f"Rerank: {setting} must be"):
        Rerank(**{setting: value})


def test_bad_inputs(folder):
    with pytest.raises(InputError, match="question is empty"):
        asyncio.run(Rerank(folder).run(" ", hits("outside")))
    with pytest.raises(InputError, match="3 hits are more than max_pairs=2"):
        asyncio.run(Rerank(folder, max_pairs=2).run("how long", hits("a", "b", "c")))


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigError, match="there is no folder"):
        asyncio.run(Rerank(str(tmp_path / "absent")).run("how long", hits("outside")))


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        asyncio.run(Rerank(str(tmp_path)).run("how long", hits("outside")))


def test_a_hub_that_does_not_answer(monkeypatch):
    import sentence_transformers

    def refuse(name, **arguments):
        raise OSError(f"cannot reach the hub for {name}\nlong advice")

    monkeypatch.setattr(sentence_transformers, "CrossEncoder", refuse)
    with pytest.raises(ModelError, match="'some/name' cannot be loaded: cannot reach the hub for some/name;"):
        asyncio.run(Rerank("some/name").run("how long", hits("outside")))


def test_a_model_with_several_labels(tmp_path):
    with pytest.raises(ConfigError, match="3 scores per pair"):
        asyncio.run(Rerank(save_cross_encoder(tmp_path / "nli", labels=3)).run("how long", hits("outside")))


def test_a_model_with_damaged_weights(tmp_path):
    with pytest.raises(ModelError, match="not a finite number"):
        asyncio.run(Rerank(save_cross_encoder(tmp_path / "nan", spoil=True)).run("how long", hits("outside")))


def test_the_package_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[cpu\]"):
        asyncio.run(Rerank("some/name").run("how long", hits("outside")))


def test_it_is_a_component_that_loads_nothing_when_made(folder):
    made = Rerank(folder, k=7)
    assert registered("Rerank") is Rerank
    assert configuration(made) == {"model": folder, "k": 7}
    assert made._encoder is None
