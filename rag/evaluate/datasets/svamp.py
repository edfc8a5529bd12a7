"""SVAMP (Patel et al., 2021) and its siblings MAWPS and ASDiv-A in the same repository: arithmetic word problems."""

from __future__ import annotations

import re

from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question

_PLACEHOLDER = re.compile(r"\bnumber(\d+)\b")


def _recognises(source: Source) -> bool:
    first = source.first().keys()
    return {"Body", "Question", "Equation", "Answer"} <= first or {"Question", "Numbers", "Equation", "Answer"} <= first


@data_format(
    "svamp",
    what="SVAMP, MAWPS and ASDiv-A: arithmetic word problems with equations, no passages",
    files="SVAMP.json, or the CSV folds in which numbers are placeholders",
    fields="Body, Question, Equation, Answer, Type? (JSON); Question, Numbers, Equation, Answer (CSV)",
    licence="MIT",
    metrics=("numeric_match",),
    recognises=_recognises,
)
def read_svamp(source: Source) -> Draft:
    """``kind`` is the operation where the file tells it; a CSV row's id is its number, from 1."""
    return Draft([_question(n, record) for n, record in enumerate(source.records(), start=1)], language="en")


def _question(n: int, record: Record) -> Question:
    equation = record.text("Equation")
    if "Numbers" in record:
        numbers = record.text("Numbers").split()
        text, equation = (_filled(record, t, numbers) for t in (record.filled("Question"), equation))
    else:
        body = record.filled("Body")
        text = f"{body if body[-1] in '.?!' else f'{body}.'} {record.filled('Question')}"
    kind = record.text("Type", default="").replace("Divison", "Division")  # the published file spells it both ways
    return Question(record.name("ID", default=str(n)), text, (_number(record),), kind=kind, metadata={"equation": equation})


def _filled(record: Record, text: str, numbers: list[str]) -> str:
    """``text`` with its placeholders number0, number1, … replaced."""

    def number(match: re.Match[str]) -> str:
        i = int(match[1])
        if i >= len(numbers):
            raise record.bad(f"number{i} stands in the text, but 'Numbers' has {len(numbers)}")
        return numbers[i].removesuffix(".0")

    return _PLACEHOLDER.sub(number, text)


def _number(record: Record) -> str:
    value = record.value("Answer")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise record.bad("'Answer' must be a number") from None
    return str(int(number)) if number.is_integer() else str(number)
