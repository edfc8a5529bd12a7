"""A data set of numbered questions, and components that answer them by rule and note every call in a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from rag.core.errors import ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.core.registry import component
from rag.core.trace import TextDelta, count, emit
from rag.core.types import Answer, Hit, Passage
from rag.evaluate.types import DataSet, Outcome, Question


@component
class Numbered:
    """Answers question n with n, and with "wrong" if n is a multiple of ``wrong``.

    It fails on multiples of ``fails``, unless ``healed`` exists. ``log`` gets a line for every question before it is answered. Later
    questions are answered sooner.
    """

    def __init__(self, log: str, wrong: int = 1000, fails: int = 1000, healed: str = "", stream: bool = False) -> None:
        self.log = log
        self.wrong = wrong
        self.fails = fails
        self.healed = healed
        self.stream = stream
        self.working = 0
        self.most = 0

    async def run(self, question: str) -> Answer:
        number = int(question.split()[-1])
        self.working += 1
        self.most = max(self.most, self.working)
        try:
            note(self.log, question)
            await asyncio.sleep(0.002 * (4 - number % 4))
        finally:
            self.working -= 1
        if number % self.fails == 0 and not (self.healed and Path(self.healed).exists()):
            raise ModelUnavailable("the model is down")
        count(calls=1, generated_tokens=number)
        if self.stream:
            emit(TextDelta("any"))
        return Answer("wrong" if number % self.wrong == 0 else str(number))


@component
class Finds:
    """Finds the same passages for every question."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    def run(self, query: str) -> list[Hit]:
        return [Hit(Passage(id, "text", id.split(":")[0]), 1.0, rank) for rank, id in enumerate(self.ids, 1)]


@component
class Counts:
    """Takes no question."""

    def run(self, hits: list[Hit]) -> str:
        return str(len(hits))


def note(log: str, line: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(handle, f"{line}\n".encode())
    finally:
        os.close(handle)


def asked(log: str | Path) -> list[str]:
    return Path(log).read_text().splitlines() if Path(log).exists() else []


def numbers(count: int, **metadata: int) -> DataSet:
    """Questions 1 to ``count``; odd ones are of kind "odd"."""
    questions = [
        Question(f"q{n}", f"number {n}", (str(n),), kind="odd" if n % 2 else "even", metadata={"size": n * n}) for n in range(1, count + 1)
    ]
    return DataSet("numbers", questions, [], ("exact_match",), "en", "", f"numbers up to {count}")


def pipeline(*nodes: object) -> Pipeline:
    pipe = Pipeline()
    for place, node in enumerate(nodes):
        pipe.add(f"answer{place or ''}", node)
    return pipe


def answered(question: Question, text: str) -> Outcome:
    return Outcome(question.id, text)


def failed(question: Question, error: str = "ModelUnavailable: down") -> Outcome:
    return Outcome(question.id, error=error)
