"""Accuracy on questions to be answered with yes or no (StrategyQA, Geva et al., TACL 2021)."""

from __future__ import annotations

import re

from rag.evaluate.metrics.registry import register
from rag.evaluate.metrics.text import answer_text
from rag.evaluate.types import Outcome, Question

_YES = ("yes", "true", "是的", "是", "对的", "对", "正确")
_NO = ("no", "false", "不是", "不对", "不正确", "否", "错误")
_ENGLISH = r"(?:yes|no|true|false)\b"
_CHINESE = "是的|是|对的|对|正确|不是|不对|不正确|否|错误"
_AFTER_ANSWER = re.compile(rf"(?:\banswer(?:\s+is|:|\s+would\s+be)|答案是|答案为|答案[:：])[\s\"'“*:：]*({_ENGLISH}|{_CHINESE})")
_FIRST = re.compile(rf"[\s\"'“‘*(（]*({_ENGLISH}|{_CHINESE})")
_ANYWHERE = re.compile(rf"\b({_ENGLISH})")


def verdict(text: str) -> bool | None:
    """Yes is True, no is False, neither is None.

    What follows the last "answer is" counts; else the first word, if it is one of the two; else the last English "yes" or "no".
    """
    lower = text.lower()
    announced = _AFTER_ANSWER.findall(lower)
    first = _FIRST.match(lower)
    if announced:
        word = announced[-1]
    elif first:
        word = first[1]
    else:
        anywhere = _ANYWHERE.findall(lower)
        word = anywhere[-1] if anywhere else ""
    return True if word in _YES else False if word in _NO else None


def _is_yes_no(question: Question) -> bool:
    return question.answerable and any(reference.strip().lower() in (*_YES, *_NO) for reference in question.answers)


@register("yes_no", needs="yes or no as the reference answer", fits=_is_yes_no)
def yes_no(question: Question, outcome: Outcome) -> float | None:
    """1 if the answer says yes or no, and rightly."""
    right = {verdict(reference) for reference in question.answers}
    said = verdict(answer_text(outcome))
    return float(said is not None and said in right)
