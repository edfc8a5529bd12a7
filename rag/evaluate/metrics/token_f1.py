"""F1 of the answer's words with the reference's: SQuAD's and, for Chinese, that of CMRC 2018."""

from __future__ import annotations

from rag.evaluate.metrics import cmrc, squad
from rag.evaluate.metrics.registry import has_answers, register
from rag.evaluate.metrics.text import answer_text, is_chinese
from rag.evaluate.types import Outcome, Question


@register("f1", needs="a reference answer", fits=has_answers)
def token_f1(question: Question, outcome: Outcome) -> float | None:
    """The best F1 over the references: of bags of words (SQuAD), for Chinese of the longest common run of segments (CMRC)."""
    compare = cmrc.f1 if is_chinese(question) else squad.f1
    return compare(answer_text(outcome), question.answers)
