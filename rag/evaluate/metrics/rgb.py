"""The protocol of RGB (Chen et al., "Benchmarking Large Language Models in Retrieval-Augmented Generation", AAAI 2024, section 3).

RGB's prompt gives the model fixed phrases for rejecting and for reporting errors; they are looked for in the answer as they are, and in a
Chinese answer after its spaces are removed. Rates of the paper are the means of these values.
"""

from __future__ import annotations

from rag.evaluate.metrics.registry import register, unanswerable
from rag.evaluate.metrics.text import is_chinese
from rag.evaluate.types import Outcome, Question

_REJECTION = ("信息不足", "insufficient information")
_ERRORS = ("事实性错误", "factual errors")


def _has_answers(question: Question) -> bool:
    return question.answerable and bool(question.answers or question.parts)


def _has_planted_error(question: Question) -> bool:
    return _has_answers(question) and "fakeanswer" in question.metadata


@register("rgb_accuracy", needs="a reference answer or parts", fits=_has_answers)
def rgb_accuracy(question: Question, outcome: Outcome) -> float | None:
    """1 if the answer holds every part of the reference (noise robustness, information integration) and does not reject."""
    return float(_right(question, outcome))


@register("rgb_rejection", needs="to be unanswerable from its passages", fits=unanswerable)
def rgb_rejection(question: Question, outcome: Outcome) -> float | None:
    """1 if the answer rejects an unanswerable question (negative rejection)."""
    return float(_rejects(question, outcome))


@register("rgb_error_detection", needs="passages with a planted error ('fakeanswer' in the metadata)", fits=_has_planted_error)
def rgb_error_detection(question: Question, outcome: Outcome) -> float | None:
    """1 if the answer reports that the passages hold factual errors (counterfactual robustness)."""
    return float(_reports_errors(question, outcome))


@register("rgb_error_correction", needs="passages with a planted error ('fakeanswer' in the metadata)", fits=_has_planted_error)
def rgb_error_correction(question: Question, outcome: Outcome) -> float | None:
    """1 if an answer that reports the error is right all the same; does not apply where the error went unnoticed.

    An answer that reports the error and then rejects is no correction here; the published script counts it as one.
    """
    return float(_right(question, outcome)) if _reports_errors(question, outcome) else None


def _right(question: Question, outcome: Outcome) -> bool:
    text = _text(question, outcome).lower()
    parts = question.parts or (question.answers,)
    return not _rejects(question, outcome) and all(any(alias.lower() in text for alias in part) for part in parts)


def _rejects(question: Question, outcome: Outcome) -> bool:
    """A pipeline that declares a refusal rejects too, whatever its words."""
    return outcome.refused or any(phrase in _text(question, outcome) for phrase in _REJECTION)


def _reports_errors(question: Question, outcome: Outcome) -> bool:
    return any(phrase in _text(question, outcome) for phrase in _ERRORS)


def _text(question: Question, outcome: Outcome) -> str:
    return outcome.answer.replace(" ", "") if is_chinese(question) else outcome.answer
