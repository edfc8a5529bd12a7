"""NQ-open (Lee et al., 2019): questions that people asked a search engine, with short answers, no passages."""

from __future__ import annotations

from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question


def _recognises(source: Source) -> bool:
    first = source.first()
    return first.keys() == {"question", "answer"} and isinstance(first["answer"], list)


@data_format(
    "nq_open",
    what="NQ-open: questions people asked a search engine, short answers, no passages",
    files="JSON Lines, such as NQ-open.dev.jsonl",
    fields="question (text), answer (list of texts)",
    licence="CC BY-SA 3.0",
    metrics=("exact_match", "f1"),
    recognises=_recognises,
)
def read_nq_open(source: Source) -> Draft:
    """Records have no id: a question's id is its number in the file, from 1."""
    records = enumerate(source.records(), start=1)
    return Draft([Question(id=str(n), question=r.filled("question"), answers=r.texts("answer")) for n, r in records], language="en")
