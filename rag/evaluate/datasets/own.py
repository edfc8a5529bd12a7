"""Anybody's own questions: JSON Lines, JSON or CSV."""

from __future__ import annotations

from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record, distinct
from rag.evaluate.datasets.source import DELIMITERS, Source
from rag.evaluate.types import Question

_READ = {"id", "question", "answers", "answer", "gold", "type", "kind", "answerable", "parts"}
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def _recognises(source: Source) -> bool:
    return "question" in source.first() and bool({"answers", "answer", "gold"} & source.first().keys())


@data_format(
    "own",
    what="your own questions, with answers, gold passages or both",
    files="JSON Lines, JSON, CSV or TSV",
    fields='question, answers (a list; in CSV "a|b"), optionally id, gold (passage ids, or {document, quote}), type, answerable',
    licence="",
    metrics=("exact_match", "f1"),
    recognises=_recognises,
    general=True,
)
def read_own(source: Source) -> Draft:
    """Without ``id`` a question's id is its number in the file, from 1. Type "unanswerable" or ``answerable`` false: refusing is right.

    Gold given as {document, quote} makes documents the gold; the quotes are kept in ``metadata["quotes"]``. If no question of the file has
    answers, it is a retrieval set. Further fields are kept as metadata.
    """
    table = not source.in_memory and source.path.suffix.lower() in DELIMITERS
    records = source.records()
    questions = [_question(n, record, table) for n, record in enumerate(records, start=1)]
    answers = any(question.answers or question.parts for question in questions)
    gold = any(question.gold for question in questions)
    notes = []
    if any("quotes" in question.metadata for question in questions):
        notes.append("gold ids are documents: compare them with the documents of retrieved passages")
    return Draft(questions, notes=notes, answers=answers or not gold, metrics=() if answers else ("ndcg@10", "recall@10"))


def _question(n: int, record: Record, table: bool) -> Question:
    gold, quotes = _gold(record, table)
    kind = record.text("type", "kind", default="")
    answerable = _answerable(record, table, kind)
    metadata = {key: value for key, value in record.fields.items() if key not in _READ}
    return Question(
        id=record.name("id", default=str(n)),
        question=record.filled("question"),
        answers=_answers(record, table) if answerable else (),
        parts=tuple(_part(record, part) for part in record.items("parts", default=[])) if answerable and not table else (),
        gold=gold,
        answerable=answerable,
        kind=kind,
        metadata={**metadata, "quotes": quotes} if quotes else metadata,
    )


def _answers(record: Record, table: bool) -> tuple[str, ...]:
    value = record.value("answers", "answer", default=[])
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    if isinstance(value, (int, float)):
        return (str(value),)
    answers = record.texts("answers", "answer", default=[])
    return distinct(iter("|".join(answers).split("|"))) if table else answers


def _answerable(record: Record, table: bool, kind: str) -> bool:
    if not table:
        return record.flag("answerable", default=kind != "unanswerable")
    written = record.text("answerable", default="").strip().lower()
    if written and written not in _TRUTH:
        raise record.bad("'answerable' must be true or false")
    return _TRUTH[written] if written else kind != "unanswerable"


def _gold(record: Record, table: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(ids, quotes): ids of passages, or of documents where quotes are given."""
    if table:
        return distinct(iter(record.text("gold", default="").split("|"))), ()
    items = [record.value("gold")] if isinstance(record.value("gold", default=[]), str) else record.items("gold", default=[])
    if all(isinstance(item, str) for item in items):
        return distinct(iter(items)), ()
    pairs = [(item.name("document"), item.text("quote", default="")) for item in record.records("gold")]
    return tuple(dict.fromkeys(id for id, _ in pairs)), tuple(quote for _, quote in pairs)


def _part(record: Record, part: object) -> tuple[str, ...]:
    aliases = [part] if isinstance(part, str) else part
    if not isinstance(aliases, list) or not aliases or not all(isinstance(alias, str) for alias in aliases):
        raise record.bad("'parts' must be a list of texts or of lists of aliases")
    return distinct(iter(aliases))
