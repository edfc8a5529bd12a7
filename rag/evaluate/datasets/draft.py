"""What a format's reader hands over, and the checks that every data set passes before it is used."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rag.core.errors import InputError
from rag.core.types import Passage, Scalar
from rag.evaluate.metrics import metric
from rag.evaluate.types import DataSet, Question

_LISTED = 5


@dataclass(slots=True)
class Draft:
    """Questions and passages as read, unchecked. ``answers`` False: a retrieval set, whose questions have none."""

    questions: list[Question]
    passages: Sequence[Passage] = ()
    language: str = ""
    notes: list[str] = field(default_factory=list)
    answers: bool = True
    metrics: tuple[str, ...] = ()


class Shelf:
    """Passages without repetition: the same title and text is one passage, however many questions bring it along."""

    def __init__(self) -> None:
        self._ids: dict[tuple[str, str], str] = {}
        self._passages: dict[str, Passage] = {}
        self._used: dict[str, int] = {}

    def put(self, text: str, *, title: str = "", id: str = "", metadata: Mapping[str, Scalar] | None = None) -> str:
        """The passage's id: ``id`` (default: the title, else a number), made unique; the first one's where it stands here already."""
        key = (title, text)
        if key not in self._ids:
            base = id or title or f"p{len(self._ids)}"
            name = base
            while name in self._passages:
                self._used[base] = self._used.get(base, 1) + 1
                name = f"{base} ({self._used[base]})"
            self._ids[key] = name
            self._passages[name] = Passage(name, text, title=title, metadata=dict(metadata or {}))
        return self._ids[key]

    def find(self, text: str, title: str = "") -> str | None:
        return self._ids.get((title, text))

    def passages(self) -> list[Passage]:
        return list(self._passages.values())


def check(draft: Draft, where: str) -> None:
    """Raise `InputError` for no questions, an empty question, ids given twice, or questions without answers."""
    if not draft.questions:
        raise InputError(f"{where}: there is no question in it")
    ids: dict[str, int] = {}
    for question in draft.questions:
        ids[question.id] = ids.get(question.id, 0) + 1
    repeated = [id for id, n in ids.items() if n > 1]
    if repeated:
        raise InputError(
            f"{where}: {_count(repeated, 'question id is', 'question ids are')} given more than once; ids must be unique: {_list(repeated)}"
        )
    empty = [q.id for q in draft.questions if not q.question.strip()]
    if empty:
        raise InputError(f"{where}: {_count(empty, 'question has', 'questions have')} no text: {_list(empty)}")
    bare = [q.id for q in draft.questions if draft.answers and q.answerable and not q.answers and not q.parts]
    if bare:
        raise InputError(
            f"{where}: {_count(bare, 'question has', 'questions have')} no answer and {'is' if len(bare) == 1 else 'are'} not marked as"
            f" unanswerable, so nothing can be scored (a test file without answers?): {_list(bare)}"
        )


def finish(draft: Draft, *, name: str, metrics: tuple[str, ...], licence: str) -> DataSet:
    """The data set: gold passages that the corpus lacks are kept, counted and listed in ``notes``."""
    notes = list(draft.notes)
    if draft.passages:
        known = {passage.id for passage in draft.passages}
        lost = [(q.id, id) for q in draft.questions for id in q.gold if id not in known]
        if lost:
            pairs = [f"{id} (question {question})" for question, id in lost]
            notes.append(
                f"{_count(lost, 'gold passage is', 'gold passages are')} missing from the corpus and cannot be found: {_list(pairs)}"
            )
    return DataSet(
        name=name,
        questions=tuple(draft.questions),
        passages=tuple(draft.passages),
        metrics=_fitting(draft.metrics or metrics, draft.questions),
        language=draft.language or language_of(q.question for q in draft.questions),
        licence=licence,
        fingerprint=fingerprint(draft.questions, draft.passages),
        notes=tuple(notes),
    )


def _fitting(names: Sequence[str], questions: Sequence[Question]) -> tuple[str, ...]:
    """Of ``names``, and of refusals where something is unanswerable, those that fit at least one question: a small sample may lack some."""
    if not all(question.answerable for question in questions):
        names = [*names, "refusal", "false_refusal"]
    return tuple(name for name in names if any(metric(name).fits(question) for question in questions))


def fingerprint(questions: Iterable[Question], passages: Iterable[Passage]) -> str:
    """SHA-256 over every question and passage, in order, as canonical JSON: the same on every platform."""
    digest = hashlib.sha256()
    for q in questions:
        rest = [q.answers, q.parts, q.gold, dict(q.grades), q.answerable, q.kind, dict(q.metadata)]
        digest.update(_canonical(["question", q.id, q.question, *rest]))
    for p in passages:
        digest.update(_canonical(["passage", p.id, p.text, p.document, p.title, dict(p.metadata)]))
    return digest.hexdigest()


def _canonical(item: list[object]) -> bytes:
    return json.dumps(item, sort_keys=True, separators=(",", ":")).encode("ascii") + b"\n"


def language_of(texts: Iterable[str]) -> str:
    """ "zh" where at least half of the first 200 texts hold more Han characters than Latin letters (no kana), else "en"."""
    votes = []
    for text, _ in zip(texts, range(200), strict=False):
        han = latin = kana = 0
        for character in text:
            name = unicodedata.name(character, "") if character.isalpha() else ""
            han += name.startswith("CJK")
            kana += name.startswith(("HIRAGANA", "KATAKANA"))
            latin += name.startswith("LATIN")
        votes.append(not kana and han * 2 > latin)
    return "zh" if votes and sum(votes) * 2 >= len(votes) else "en"


def _count(items: Sequence[object], one: str, many: str) -> str:
    return f"{len(items):,} {one if len(items) == 1 else many}"


def _list(items: Sequence[str]) -> str:
    more = f" and {len(items) - _LISTED:,} more" if len(items) > _LISTED else ""
    return ", ".join(items[:_LISTED]) + more
