"""PopQA (Mallen et al., 2023): questions about entities of known popularity; with Wikipedia paragraphs where the file brings them."""

from __future__ import annotations

import json

from rag.evaluate.datasets.draft import Draft, Shelf
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record, distinct
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question


def _recognises(source: Source) -> bool:
    return {"question", "possible_answers", "s_pop"} <= source.first().keys()


@data_format(
    "popqa",
    what="PopQA: questions about entities by popularity, with Wikipedia paragraphs where the file has them (gold: the subject's)",
    files="popqa.json, popQA.tsv",
    fields="id, question, possible_answers (a JSON list as text), prop, s_pop, paragraphs?: [{title, text, is_supporting}]",
    licence="MIT",
    metrics=("match", "exact_match", "f1"),
    recognises=_recognises,
)
def read_popqa(source: Source) -> Draft:
    """``kind`` is the relation asked for; ``metadata["popularity"]`` the subject's monthly page views."""
    shelf = Shelf()
    return Draft([_question(record, shelf) for record in source.records()], shelf.passages(), language="en")


def _question(record: Record, shelf: Shelf) -> Question:
    subject = record.text("s_wiki_title", "subj", default="")
    paragraphs = [(p.text("title"), shelf.put(p.text("text"), title=p.text("title"))) for p in record.records("paragraphs", default=[])]
    return Question(
        id=record.name("id"),
        question=record.filled("question"),
        answers=_answers(record),
        gold=tuple(dict.fromkeys(id for title, id in paragraphs if title == subject)),
        kind=record.text("prop", default=""),
        metadata={"popularity": _number(record), "subject": subject},
    )


def _answers(record: Record) -> tuple[str, ...]:
    written = record.text("possible_answers")
    try:
        answers = json.loads(written)
    except ValueError:
        answers = None
    if not isinstance(answers, list) or not all(isinstance(answer, str) for answer in answers):
        raise record.bad("'possible_answers' must be a JSON list of texts, written as text")
    return distinct(iter(answers))


def _number(record: Record) -> int:
    try:
        return int(record.value("s_pop"))
    except (TypeError, ValueError):
        raise record.bad("'s_pop' must be a whole number") from None
