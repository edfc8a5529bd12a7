"""ASQA (Stelmakh et al., 2022): ambiguous questions whose long answer must cover every reading."""

from __future__ import annotations

from collections.abc import Iterator

from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record, distinct
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question

_SPLITS = ("dev", "test", "train")


def _recognises(source: Source) -> bool:
    first = source.first()
    if {"ambiguous_question", "qa_pairs"} <= first.keys():
        return True
    split: dict[str, object] = next((first[name] for name in _SPLITS if isinstance(first.get(name), dict)), {})
    record = next(iter(split.values()), None)
    return isinstance(record, dict) and "ambiguous_question" in record


@data_format(
    "asqa",
    what="ASQA: ambiguous questions; a long answer must give the short answer of every reading",
    files="the official ASQA.json (its dev questions are read)",
    fields="ambiguous_question, qa_pairs: [{question, short_answers}], annotations: [{long_answer}]",
    licence="Apache-2.0",
    metrics=("string_em", "rouge_l"),
    recognises=_recognises,
)
def read_asqa(source: Source) -> Draft:
    """``answers`` are the annotators' long answers, ``parts`` the short answers of each reading."""
    if "ambiguous_question" in source.first():
        return Draft([_question(record.name("sample_id"), record) for record in source.records()], language="en")
    top = source.top()
    split = next((name for name in _SPLITS if name in top), None)
    if split is None:
        raise top.bad(f"none of {', '.join(_SPLITS)} is in it")
    records = _split(source, top.record(split), split)
    return Draft([_question(id, record) for id, record in records], language="en", notes=[f"these are the questions of '{split}'"])


def _split(source: Source, split: Record, name: str) -> Iterator[tuple[str, Record]]:
    for id, row in split.fields.items():
        yield id, source.record(row, f"{source.path}, {name}, {id}")


def _question(id: str, record: Record) -> Question:
    parts = tuple(pair.texts("short_answers") for pair in record.records("qa_pairs"))
    return Question(
        id=id,
        question=record.filled("ambiguous_question"),
        answers=distinct(annotation.text("long_answer") for annotation in record.records("annotations", default=[])),
        parts=tuple(part for part in parts if part),
        kind=f"{len(parts)} readings",
        metadata={"readings": tuple(pair.text("question", default="") for pair in record.records("qa_pairs"))},
    )
