"""String exact match over the parts of an ambiguous question's answer (ASQA: Stelmakh et al., EMNLP 2022, section 5.1)."""

from __future__ import annotations

from rag.evaluate.metrics import squad
from rag.evaluate.metrics.containment import holds_text
from rag.evaluate.metrics.registry import register
from rag.evaluate.metrics.text import answer_text, is_chinese
from rag.evaluate.types import Outcome, Question


def _has_parts(question: Question) -> bool:
    return question.answerable and bool(question.parts)


@register("string_em", needs="parts that an answer must all give", fits=_has_parts)
def string_em(question: Question, outcome: Outcome) -> float | None:
    """The share of the parts that the answer gives: an alias of each stands in it, after SQuAD's normalisation."""
    text = answer_text(outcome)
    if is_chinese(question):
        return sum(holds_text(text, part) for part in question.parts) / len(question.parts)
    normalised = squad.normalise(text)
    given = sum(any(alias in normalised for alias in map(squad.normalise, part) if alias) for part in question.parts)
    return given / len(question.parts)
