from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generators.sentences import beyond_first_sentence, first_sentence


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


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("The lamp is lit. Mara keeps it.", "The lamp is lit. Mara "),
        ("Acme Inc. the maker, left. It did.", "Acme Inc. the maker, left. It "),
        ("灯亮着没有灭。玛拉看守它。", "灯亮着没有灭。玛拉看"),
        ("The lamp is lit. 1234567890123456789", "The lamp is lit. 12345678901234567"),
        ("no end in sight", None),
        ("The lamp is lit.", None),
    ],
)
def test_where_a_look_ahead_may_be_stopped(text, at):
    seen = [text[:end] for end in range(len(text) + 1) if beyond_first_sentence(text[:end])]
    assert (seen[0] if seen else None) == at
    if at:
        assert first_sentence(at) == first_sentence(text)


@given(st.text(alphabet="ab. !?。！\n", max_size=80))
def test_sentences_join_to_the_text_they_came_from(text):
    rest, joined = text, ""
    while (sentence := first_sentence(rest)) != "":
        joined += sentence
        rest = rest[len(sentence) :]
    assert joined + rest == text
    assert rest.strip() == ""
