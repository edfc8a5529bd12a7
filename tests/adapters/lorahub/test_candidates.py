from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from adapters.lorahub.candidates import at_random, by_loss_on, by_similarity, card_text
from adapters.lorahub.examples import batches
from adapters.training.data import Answered
from rag.core.errors import InputError
from tests.adapters.lorahub.parts import Numbers, logits, saved, trained
from tests.adapters.tiny import tiny

WORDS = ("chemistry", "acid", "law", "court")
FEW = [Answered("which acid", "acid"), Answered("chemistry", "acid")]


def count_words(texts: list[str]) -> np.ndarray:
    """An encoder: how often each of `WORDS` is there."""
    return np.array([[text.count(word) for word in WORDS] for text in texts], dtype=np.float32)


def test_at_random_is_by_the_seed_and_not_the_order() -> None:
    folders = [Path(f"lora{number:02}") for number in range(30)]
    chosen = at_random(folders, 20, seed=3)
    assert len(set(chosen)) == 20
    assert chosen == at_random(folders[::-1], 20, seed=3)
    assert chosen != at_random(folders, 20, seed=4)
    assert at_random(folders[:5]) == folders[:5]


def test_by_similarity_takes_the_cards_that_are_like_the_examples(tmp_path: Path) -> None:
    law = saved(tmp_path / "a", card={"description": "court and law"})
    acids = saved(tmp_path / "b", card={"description": "of an acid", "data": {"file": "acid.jsonl"}})
    blank = saved(tmp_path / "c")
    assert by_similarity([law, acids, blank], FEW, count_words, 1) == [acids]
    assert by_similarity([law, acids, blank], FEW, count_words, 3)[0] == acids
    assert card_text(acids) == "b\nof an acid\nacid.jsonl"
    assert card_text(tmp_path / "no-card_here") == "no card here"


def test_by_loss_takes_what_fits_the_examples_best(tmp_path: Path) -> None:
    examples = [Answered("5 6", "60 61"), Answered("15 16", "60 61")]
    batch = batches(tiny("llama"), Numbers(), examples, 5, 64)[0]
    folders = [
        saved(tmp_path / "noise1", seed=1, targets="all"),
        trained(tmp_path / "task", batch, 3),
        saved(tmp_path / "noise2", seed=2, targets="all"),
    ]
    model = tiny("llama", torch.float64)
    before = logits(model)
    assert by_loss_on(model, Numbers(), folders, examples, 1) == [folders[1]]
    assert set(by_loss_on(model, Numbers(), folders, examples, 9)) == set(folders)
    assert torch.equal(logits(model), before)


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no LoRAs to choose from"):
        at_random([])
    with pytest.raises(InputError, match="whole number from 1"):
        at_random([tmp_path], 0)
    with pytest.raises(InputError, match="no examples"):
        by_similarity([tmp_path], [], count_words)
