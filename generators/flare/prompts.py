"""The chats of FLARE: one that writes the answer, one that asks what a doubtful term stands for."""

from __future__ import annotations

from typing import Literal, get_args

from generators.flare.search_call import OPENS
from generators.prompts import render
from rag.core.errors import InputError
from rag.core.types import Message
from retrievers.prompting import as_data

Task = Literal["answer", "reasoning", "yes_no", "ambiguous", "summary"]
"""A plain answer; steps that end in "So the answer is X."; the same with yes or no; all readings of a question; a summary of a subject."""


_BROKEN = OPENS.replace("[", "[ ")


def check_task(task: str, where: str) -> None:
    """Raise `InputError` unless there are prompts for ``task``."""
    if task not in get_args(Task):
        raise InputError(f"{where}: task must be one of {', '.join(map(repr, get_args(Task)))}, not {task!r}")


def write_chat(task: Task, language: str, question: str, passages: str) -> list[Message]:
    """The task with its examples as the system's turn; as the user's, the question, below ``passages`` if there are any."""
    return [Message("system", render(f"flare/{task}", language)), question_turn(language, question, passages)]


def instruct_chat(task: Task, language: str, question: str, passages: str) -> list[Message]:
    """The two skills of FLARE-instruct, to search and to do the task, as the system's turn, then an example and the question.

    The example is a turn of its own, because small models imitate turns rather than rules. What is foreign spells no search.
    """
    return [
        Message("system", render("flare/instruct", language, task=render(f"flare/{task}", language))),
        question_turn(language, render("flare/instruct_question", language), ""),
        Message("assistant", render("flare/instruct_answer", language)),
        question_turn(language, question.replace(OPENS, _BROKEN), passages.replace(OPENS, _BROKEN)),
    ]


def question_turn(language: str, question: str, passages: str) -> Message:
    """``question`` below the search results ``passages``, which are data already and may be empty."""
    if not passages:
        return Message("user", render("flare/question", language, question=as_data(question)))
    return Message("user", render("flare/question_below_results", language, passages=passages, question=as_data(question)))


def ask_chat(language: str, question: str, written: str, term: str) -> list[Message]:
    """Ask for a question that ``term`` answers, given what was ``written`` for ``question`` (the paper's explicit queries)."""
    fields = {"question": as_data(question), "written": as_data(written).strip(), "term": as_data(term)}
    return [Message("system", render("flare/ask_system", language)), Message("user", render("flare/ask", language, **fields))]
