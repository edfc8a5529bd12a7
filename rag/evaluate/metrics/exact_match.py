"""Exact match of SQuAD and, for Chinese, of CMRC 2018."""

from __future__ import annotations

from rag.evaluate.metrics import cmrc, squad
from rag.evaluate.metrics.registry import has_answers, register
from rag.evaluate.metrics.text import answer_text, is_chinese
from rag.evaluate.types import Outcome, Question


@register("exact_match", needs="a reference answer", fits=has_answers)
def exact_match(question: Question, outcome: Outcome) -> float | None:
    """1 if the normalised answer equals a normalised reference (SQuAD's rules; CMRC's for Chinese)."""
    compare = cmrc.exact if is_chinese(question) else squad.exact
    return compare(answer_text(outcome), question.answers)
