from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from generators.decoupled.tokenizer import train_tokenizer
from rag.core.errors import InputError
from tests.generators.decoupled.tiny import TEXTS, tokenizer


def test_it_is_learnt_from_the_texts_and_loses_nothing(tmp_path: Path) -> None:
    made = tokenizer()
    assert 259 < len(made) <= 300
    assert (made.pad_token_id, made.eos_token_id, made.sep_token_id, made.model_max_length) == (0, 1, 2, 96)
    for text in [*TEXTS, "naïve 🐈 text\nof two lines, never seen"]:
        assert made.decode(made(text, add_special_tokens=False)["input_ids"]) == text
    assert len(made("the cat sat")["input_ids"]) == 3
    made.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()


@pytest.mark.parametrize("given", [(258, 96), (300, 1)])
def test_too_small(given: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="259 tokens or more"):
        train_tokenizer(TEXTS, *given)
