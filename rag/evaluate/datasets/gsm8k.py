"""GSM8K (Cobbe et al., 2021): grade-school word problems; the answer stands after "####"."""

from __future__ import annotations

from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question

_MARK = "####"


def _recognises(source: Source) -> bool:
    answer = source.first().get("answer")
    return "question" in source.first() and isinstance(answer, str) and _MARK in answer


@data_format(
    "gsm8k",
    what="GSM8K: grade-school word problems with worked solutions, no passages",
    files="JSON Lines, such as test.jsonl",
    fields=f"question (text), answer (the worked solution, then {_MARK} and the number)",
    licence="MIT",
    metrics=("numeric_match",),
    recognises=_recognises,
)
def read_gsm8k(source: Source) -> Draft:
    """A question's id is its number in the file, from 1; the worked solution is in ``metadata["solution"]``."""
    return Draft([_question(n, record) for n, record in enumerate(source.records(), start=1)], language="en")


def _question(n: int, record: Record) -> Question:
    solution, mark, answer = record.text("answer").rpartition(_MARK)
    number = answer.strip().replace(",", "")
    if not mark or not number:
        raise record.bad(f"'answer' must end in {_MARK} and a number")
    return Question(str(n), record.filled("question"), (number,), metadata={"solution": solution.strip()})
