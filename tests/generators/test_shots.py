from __future__ import annotations

import pytest

from generators.shots import on_topic, shots


@pytest.mark.parametrize(
    ("name", "pairs"), [("rewrite/shots", 2), ("decompose/shots", 2), ("self_rag/relevance_shots", 2), ("self_rag/support_shots", 3)]
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_examples_are_turns_in_pairs(name, pairs, language):
    turns = shots(name, language)
    assert [turn.role for turn in turns] == ["user", "assistant"] * pairs
    assert all(turn.content == turn.content.strip() != "" for turn in turns)


def test_a_reply_may_have_several_lines():
    assert shots("decompose/shots", "en")[1].content == "How long is the river Ilm?\nHow long is the river Saale?"


@pytest.mark.parametrize(
    ("reply", "question", "kept"),
    [
        ("lamp keeper", "Who keeps the lamp?", True),
        ("LAMPS", "Who keeps the lamp?", True),
        ("cooked rice", "Who keeps the lamp?", False),
        ("", "Who keeps the lamp?", False),
        ("events of 1987", "What happened in 1987?", True),
        ("管灯的人", "灯是谁管的？", True),
        ("熟米饭", "灯是谁管的？", False),
        ("anything", "Who is it?", True),
        ("?!", "Who is it?", False),
    ],
)
def test_on_topic(reply, question, kept):
    assert on_topic(reply, question) is kept
