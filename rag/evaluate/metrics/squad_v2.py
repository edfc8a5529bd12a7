"""Exact match and F1 over answerable and unanswerable questions together, as the script of SQuAD 2.0 reports them."""

from __future__ import annotations

from rag.evaluate.metrics import squad
from rag.evaluate.metrics.exact_match import exact_match
from rag.evaluate.metrics.registry import has_answers, register
from rag.evaluate.metrics.text import answer_text, refuses
from rag.evaluate.metrics.token_f1 import token_f1
from rag.evaluate.types import Outcome, Question

_NEEDS = "a reference answer, or to be unanswerable"


def _fits(question: Question) -> bool:
    return has_answers(question) or not question.answerable


@register("squad2_exact_match", needs=_NEEDS, fits=_fits)
def squad2_exact_match(question: Question, outcome: Outcome) -> float | None:
    """Exact match, where refusing (SQuAD's empty prediction) is the one right answer to an unanswerable question."""
    return exact_match(question, outcome) if question.answerable else _rightly_empty(outcome)


@register("squad2_f1", needs=_NEEDS, fits=_fits)
def squad2_f1(question: Question, outcome: Outcome) -> float | None:
    """F1, where refusing (SQuAD's empty prediction) is the one right answer to an unanswerable question."""
    return token_f1(question, outcome) if question.answerable else _rightly_empty(outcome)


def _rightly_empty(outcome: Outcome) -> float:
    """A refusal, or a text in which SQuAD's normalisation leaves nothing."""
    return float(refuses(outcome) or squad.exact(answer_text(outcome), ()))
