from __future__ import annotations

import math

import pytest

from generators.flare.sentence import sentence_of
from rag.core.types import Generation, Token


def generation(*tokens: tuple[str, float], finish="stop", cut: int | None = None) -> Generation:
    """A generation of (text, probability) tokens; an empty text is a byte of the character in the token after it."""
    made, at = [], 0
    for number, (text, probability) in enumerate(tokens):
        made.append(Token(text, number, math.log(probability), at, at + len(text)))
        at += len(text)
    return Generation("".join(text for text, _ in tokens), tuple(made), finish, 1, len(made))


def test_tokens_belong_to_the_sentence_that_they_intersect():
    sentence = sentence_of(generation((" The", 0.9), (" lamp", 0.8), (" burns", 0.7), (".\n", 0.6), ("Mara", 0.1)))
    assert sentence.text == " The lamp burns."
    assert [piece.text for piece in sentence.pieces] == [" The", " lamp", " burns", "."]  # the line break is left to the next sentence
    assert len(sentence.tokens) == 4
    assert sentence.weakest.probability == pytest.approx(0.6)
    assert not sentence.last


def test_the_bytes_of_a_character_stand_or_fall_together():
    sentence = sentence_of(generation(("", 0.2), ("", 0.9), ("灯", 1.0), ("亮", 0.8), ("着没有灭。", 1.0), ("", 0.01), ("玛", 1.0)))
    assert sentence.text == "灯亮着没有灭。"
    assert [(piece.text, piece.tokens) for piece in sentence.pieces] == [("灯", 3), ("亮", 1), ("着没有灭。", 1)]
    assert sentence.pieces[0].probability == pytest.approx(0.2)
    assert len(sentence.tokens) == 5  # the byte of the next sentence's character is not among them


@pytest.mark.parametrize(
    ("ahead", "last"),
    [
        (generation(("It is lit.", 1.0)), True),
        (generation(("It is lit.", 1.0), (" \n", 1.0)), True),
        (generation(("It is lit.", 1.0), finish="length"), False),
        (generation(("It is lit.", 1.0), (" Mara", 1.0)), False),
        (generation(("It is", 1.0), finish="length"), False),
        (generation(), True),
        (generation(("  ", 1.0), finish="length"), True),
    ],
)
def test_the_last_sentence_is_the_one_behind_which_the_model_stops(ahead, last):
    assert sentence_of(ahead).last is last


def test_the_end_of_text_token_is_no_part_of_the_sentence():
    assert sentence_of(generation(("It is lit.", 1.0), ("", 0.01))).weakest.probability == 1.0


def test_an_empty_sentence_is_doubtful():
    assert sentence_of(generation()).weakest.probability == 0.0
