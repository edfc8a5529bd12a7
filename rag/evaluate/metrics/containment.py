"""Accuracy by containment, for answers that are sentences (PopQA, Mallen et al., ACL 2023; Self-RAG, Asai et al., ICLR 2024)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rag.evaluate.metrics import cmrc, squad
from rag.evaluate.metrics.registry import has_answers, register
from rag.evaluate.metrics.text import answer_text, is_chinese
from rag.evaluate.types import Outcome, Question

_CHINESE_MARKS = re.compile(r"[\s\W_]+")


@register("match", needs="a reference answer", fits=has_answers)
def match(question: Question, outcome: Outcome) -> float | None:
    """1 if the answer holds a reference: as whole words after SQuAD's normalisation, in Chinese as characters without punctuation."""
    text = answer_text(outcome)
    return float(holds_text(text, question.answers) if is_chinese(question) else _holds_words(text, question.answers))


def holds_text(text: str, references: Iterable[str]) -> bool:
    """Whether the characters of a reference stand in ``text``; case, punctuation and white space do not count."""
    bare = _bare(text)
    return any(_bare(reference) in bare for reference in references if _bare(reference))


def _bare(text: str) -> str:
    return _CHINESE_MARKS.sub("", cmrc.strip_punctuation(text))


def _holds_words(text: str, references: Iterable[str]) -> bool:
    """Whole words: "12" does not stand in "2012". A reference of which nothing is left stands nowhere."""
    padded = f" {squad.normalise(text)} "
    return any(f" {reference} " in padded for reference in map(squad.normalise, references) if reference)
