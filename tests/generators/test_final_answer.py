from __future__ import annotations

import pytest

from generators.final_answer import FinalAnswer, final_answer
from rag.core.trace import span
from rag.core.types import Answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Mara was born in Oslo. So the answer is Oslo.", "Oslo"),
        ("So the final answer is: yes.\nNext question", "yes"),
        ("The answer is A. No, the answer is 'B. C.'", "B. C"),
        ("The answer is **12 hours**.", "12 hours"),
        ("所以答案是：奥斯陆。", "奥斯陆"),
        ("Oslo", None),
        ("So the answer is", None),
    ],
)
def test_what_follows_the_last_the_answer_is(text, answer):
    assert final_answer(text) == answer


def test_as_a_node():
    assert FinalAnswer().run(Answer("Thus. So the answer is Oslo.", notes=("n",))) == Answer("Oslo", notes=("n",))
    with span("final") as seen:
        assert FinalAnswer().run(Answer("Oslo")).text == "Oslo"
    assert "kept whole" in seen.notes[0]
