"""RGB (Chen et al., 2024): noise robustness, rejection, integration and counterfactuals, each question with its own documents."""

from __future__ import annotations

from typing import Any

from rag.evaluate.datasets.draft import Draft, Shelf
from rag.evaluate.datasets.formats import data_format
from rag.evaluate.datasets.record import Record, distinct
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question


def _recognises(source: Source) -> bool:
    return {"query", "answer", "positive", "negative"} <= source.first().keys()


@data_format(
    "rgb",
    what="RGB: noise, integration (int) and counterfactual documents (fact), Chinese and English (gold: positive documents)",
    files="JSON Lines named *.json, such as zh_refine.json, en_int.json, en_fact.json",
    fields="id, query, answer (a text, or a list of parts: texts or lists of aliases), positive, negative, positive_wrong?, fakeanswer?",
    licence="CC BY-NC-SA 4.0: evaluation only",
    metrics=("rgb_accuracy", "rgb_error_detection", "rgb_error_correction"),
    recognises=_recognises,
)
def read_rgb(source: Source) -> Draft:
    """``kind`` is the split: refine, int or fact.

    All answer parts must be given: one part is in ``answers``, several in ``parts``. ``metadata`` has the ids of the question's own
    documents: "positive", "negative" and, with the false answer put in, "wrong"; "fakeanswer" holds those false answers.
    """
    shelf = Shelf()
    return Draft([_question(record, shelf) for record in source.records()], shelf.passages())


def _question(record: Record, shelf: Shelf) -> Question:
    id = record.name("id")
    parts = _parts(record, "answer")
    own = {
        role: tuple(dict.fromkeys(shelf.put(text, id=f"{id}:{role}:{n}") for n, text in enumerate(_documents(record, field))))
        for role, field in (("positive", "positive"), ("negative", "negative"), ("wrong", "positive_wrong"))
    }
    if "fakeanswer" in record:
        own["fakeanswer"] = tuple(alias for part in _parts(record, "fakeanswer") for alias in part)
    return Question(
        id=id,
        question=record.filled("query"),
        answers=parts[0] if len(parts) == 1 else (),
        parts=parts if len(parts) > 1 else (),
        gold=own["positive"],
        kind=_split(record),
        metadata=own,
    )


def _split(record: Record) -> str:
    if "positive_wrong" in record:
        return "fact"
    return "int" if any(isinstance(document, list) for document in record.items("positive")) else "refine"


def _parts(record: Record, name: str) -> tuple[tuple[str, ...], ...]:
    """As the official script reads it: a list holds what must all be given, a list in it the aliases of one part."""
    value: Any = record.value(name)
    parts = []
    for item in value if isinstance(value, list) else [value]:
        aliases = item if isinstance(item, list) else [item]
        if not aliases or not all(isinstance(alias, str) for alias in aliases):
            raise record.bad(f"'{name}' must be a text, or a list of texts or of lists of texts")
        parts.append(distinct(iter(aliases)))
    return tuple(dict.fromkeys(part for part in parts if part))


def _documents(record: Record, name: str) -> list[str]:
    found: list[str] = []
    for item in record.items(name, default=[]):
        texts = item if isinstance(item, list) else [item]
        if not all(isinstance(text, str) for text in texts):
            raise record.bad(f"'{name}' must be a list of texts or of lists of texts")
        found.extend(texts)
    return found
