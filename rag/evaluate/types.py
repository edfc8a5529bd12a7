"""What an evaluation is made of: questions with gold answers and gold passages, and what a pipeline made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rag.core.types import Passage


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a data set.

    ``answers`` are aliases of one answer: any of them is right; empty with ``answerable`` False means that refusing is right. ``parts``
    holds further answer sets where all must be given (ASQA, RGB integration). ``gold`` are ids of relevant passages (``grades`` where
    graded). ``kind`` is the type for breakdowns ("single-hop", "bridge", …); ``metadata`` keeps the rest of the record (popularity).
    """

    id: str
    question: str
    answers: tuple[str, ...] = ()
    parts: tuple[tuple[str, ...], ...] = ()
    gold: tuple[str, ...] = ()
    grades: Mapping[str, int] = field(default_factory=dict)
    answerable: bool = True
    kind: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DataSet:
    """Questions and, where the set brings them, the passages to search. ``fingerprint`` names the data exactly (SHA-256 of the records)."""

    name: str
    questions: Sequence[Question]
    passages: Sequence[Passage]
    metrics: tuple[str, ...]
    language: str
    licence: str
    fingerprint: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one pipeline made of one question: an answer, or an error that is counted apart and never scored.

    ``retrieved`` are the passage ids it was shown, best first; ``counts`` are the trace's counters; ``trace`` is the span tree as JSON.
    """

    question: str
    answer: str = ""
    refused: bool = False
    citations: tuple[tuple[str, bool], ...] = ()
    retrieved: tuple[str, ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    first_token: float | None = None
    error: str = ""
    trace: Mapping[str, Any] = field(default_factory=dict)
