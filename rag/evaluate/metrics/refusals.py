"""Whether a pipeline declines where it should, and only there."""

from __future__ import annotations

from rag.evaluate.metrics.registry import register, unanswerable
from rag.evaluate.metrics.text import refuses
from rag.evaluate.types import Outcome, Question


def _answerable(question: Question) -> bool:
    return question.answerable


@register("refusal", needs="to be unanswerable", fits=unanswerable)
def refusal(question: Question, outcome: Outcome) -> float | None:
    """1 if an unanswerable question is refused."""
    return float(refuses(outcome))


@register("false_refusal", needs="to be answerable", fits=_answerable, higher_is_better=False)
def false_refusal(question: Question, outcome: Outcome) -> float | None:
    """1 if an answerable question is refused."""
    return float(refuses(outcome))
