from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.sentences import first_sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("The lamp is lit. Mara keeps it.", "The lamp is lit."),
        (" The lamp is lit.  \nMara", " The lamp is lit."),
        ("1. The lamp is lit. Mara", "1. The lamp is lit."),
        ("Dr. Mara keeps the lamp. She", "Dr. Mara keeps the lamp."),
        ("灯亮着没有灭。玛拉看守它。", "灯亮着没有灭。"),
        ("no end in sight", "no end in sight"),
        ("No. Yes, it is.", "No. Yes, it is."),
        ("", ""),
        ("  \n", ""),
    ],
)
def test_the_first_sentence(text, sentence):
    assert first_sentence(text) == sentence


@given(st.text(alphabet="ab. !?。！\n", max_size=80))
def test_sentences_join_to_the_text_they_came_from(text):
    rest, joined = text, ""
    while (sentence := first_sentence(rest)) != "":
        joined += sentence
        rest = rest[len(sentence) :]
    assert joined + rest == text
    assert rest.strip() == ""
