"""SQuAD (Rajpurkar et al., 2016; 2018) and what shares its form: XQuAD, CMRC 2018, MLQA, DRCD; nested, or flat as on the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping

from rag.evaluate.datasets.draft import Draft, Shelf
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record, distinct
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question

_LANGUAGE = re.compile(r"\.([a-z]{2})(?:\.|$)")


def _recognises(source: Source) -> bool:
    first = source.first()
    data = first.get("data")
    nested = isinstance(data, list) and bool(data) and isinstance(data[0], dict) and "paragraphs" in data[0]
    return nested or {"context_text", "qas"} <= first.keys() or _is_flat(first)


def _is_flat(first: Mapping[str, object]) -> bool:
    """A question per record, as on the hub."""
    return {"context", "question"} <= first.keys() and isinstance(first.get("answers"), dict)


@data_format(
    "squad",
    what="Extractive questions over paragraphs: SQuAD 1.1 and 2.0, XQuAD, CMRC 2018 (gold: the question's paragraph)",
    files="one JSON file, such as dev-v2.0.json or xquad.en.json",
    fields="data: [{title, paragraphs: [{context, qas: [{id, question, answers: [{text}], is_impossible?}]}]}]",
    licence="that of the file (SQuAD, XQuAD, CMRC 2018: CC BY-SA 4.0)",
    metrics=("exact_match", "f1"),
    recognises=_recognises,
)
def read_squad(source: Source) -> Draft:
    """Paragraphs become passages without a title, as published retrieval figures have them; the article is in their metadata."""
    shelf = Shelf()
    questions: list[Question] = []
    for title, paragraph in _paragraphs(source):
        passage = shelf.put(paragraph.text("context", "context_text"), id=_paragraph_id(title, paragraph), metadata={"article": title})
        for qa in paragraph.records("qas") if "qas" in paragraph else [paragraph]:
            questions.append(_question(qa, passage, title))
    named = _LANGUAGE.search("" if source.in_memory else source.path.stem)
    metrics = () if all(question.answerable for question in questions) else ("squad2_exact_match", "squad2_f1")
    return Draft(questions, shelf.passages(), language=named[1] if named else "", metrics=metrics)


def _paragraphs(source: Source) -> list[tuple[str, Record]]:
    """(article, paragraph) of each of the three layouts."""
    first = source.first()
    if {"context_text", "qas"} <= first.keys() or _is_flat(first):
        return [(record.text("title", default=""), record) for record in source.records()]
    return [(a.text("title", default=""), p) for a in source.top().records("data") for p in a.records("paragraphs")]


def _paragraph_id(title: str, paragraph: Record) -> str:
    return paragraph.name("context_id", default="0") if "context_id" in paragraph else title


def _question(qa: Record, passage: str, title: str) -> Question:
    impossible = qa.flag("is_impossible", default=False)
    answers = _answers(qa)
    # SQuAD 2.0 on the hub has no is_impossible: there an empty list of answers says so
    flat_empty = not answers and "is_impossible" not in qa and isinstance(qa.value("answers", default=[]), dict)
    answerable = not (impossible or flat_empty)
    return Question(
        id=qa.name("id", "query_id"),
        question=qa.filled("question", "query_text"),
        answers=answers if answerable else (),
        gold=(passage,),
        answerable=answerable,
        kind="answerable" if answerable else "unanswerable",
        metadata={"article": title},
    )


def _answers(qa: Record) -> tuple[str, ...]:
    if isinstance(qa.value("answers", default=[]), dict):
        return qa.record("answers").texts("text")
    items = qa.items("answers", default=[])
    if all(isinstance(item, str) for item in items):
        return qa.texts("answers", default=[])
    return distinct(answer.text("text") for answer in qa.records("answers"))
