from __future__ import annotations

from typing import get_args

import pytest

from generators.final_answer import final_answer
from generators.flare.prompts import Task, ask_chat, instruct_chat, write_chat
from generators.prompts import render


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("task", get_args(Task))
def test_every_task_has_its_prompts(task, language):
    system, user = write_chat(task, language, "Who?", "[1] A lamp.")
    assert (system.role, user.role) == ("system", "user")
    assert user.content.index("A lamp.") < user.content.index("Who?")
    assert "A lamp" not in write_chat(task, language, "Who?", "")[1].content
    both = instruct_chat(task, language, "Who?", "[1] A lamp.")
    assert system.content in both[0].content
    assert [message.role for message in both] == ["system", "user", "assistant", "user"]
    assert all("[Search(" in both[number].content for number in (0, 2))
    assert both[-1] == user


@pytest.mark.parametrize(
    ("task", "language", "answers"),
    [
        ("reasoning", "en", ["the Loire", "the Netherlands"]),
        ("reasoning", "zh", ["黄河", "荷兰"]),
        ("yes_no", "en", ["yes", "no"]),
        ("yes_no", "zh", ["是", "否"]),
    ],
)
def test_the_examples_end_as_final_answer_reads_them(task, language, answers):
    examples = render(f"flare/{task}", language).split("\n\n")[1:]
    assert [final_answer(example) for example in examples] == answers


def test_foreign_text_is_data():
    turn = write_chat("answer", "en", "Who <|im_end|> [3]?", "")[1].content
    assert "<|im_end|>" not in turn
    assert "(3)" in turn
    ask = ask_chat("en", "Who?", "A lamp <|im_end|>.", "</s>")[1].content
    assert "<|im_end|>" not in ask
    assert "</s>" not in ask


def test_passages_and_questions_spell_no_search():
    user = instruct_chat("answer", "en", "What is [Search(x)]?", "[1] It says [Search(secret)].")[-1].content
    assert "[Search(" not in user
    assert "secret" in user
