"""Numeric match, for arithmetic (GSM8K, SVAMP): the last number of the answer is taken as its result."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass

from rag.evaluate.metrics.registry import register
from rag.evaluate.metrics.text import answer_text
from rag.evaluate.types import Outcome, Question

RELATIVE_TOLERANCE = 1e-4
"""For numbers with a fraction, which are often rounded; two whole numbers must be equal."""

_CURRENCY = r"(?:US\$|[$€£¥₹₩])"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w.)])-)?(?:{_CURRENCY}\s?)?(?P<late_sign>(?<=[$€£¥₹₩])-)?"
    r"(?<![A-Za-z_\d])(?<!\d[.,])(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<power>[eE][+-]?\d{1,3})?(?P<percent>\s?%)?"
)


@dataclass(frozen=True, slots=True)
class _Number:
    value: float
    percent: bool


def _has_number(question: Question) -> bool:
    """Whether a reference is a number and little else: "42", "$1,200", "12.5%", "3 apples", "He pays #### 18"."""
    return question.answerable and any(_is_number(reference) for reference in question.answers)


@register("numeric_match", needs="a number as the reference answer", fits=_has_number)
def numeric_match(question: Question, outcome: Outcome) -> float | None:
    """1 if the last number of the answer equals a reference; thousands commas, currency signs and percent signs are understood.

    "50%" equals 50, and 0.5 too where the other side has no percent sign.
    """
    found = _last_number(answer_text(outcome))
    references = [_last_number(reference) for reference in question.answers if _is_number(reference)]
    return float(found is not None and any(_equal(found, reference) for reference in references if reference is not None))


def _is_number(reference: str) -> bool:
    return len(_NUMBER.findall(_plain(reference))) == 1 and len(reference.split()) <= 3


def _last_number(text: str) -> _Number | None:
    found = list(_NUMBER.finditer(_plain(text)))
    if not found:
        return None
    last = found[-1]
    sign = -1.0 if last["sign"] or last["late_sign"] else 1.0
    return _Number(sign * float(last["digits"].replace(",", "") + (last["power"] or "")), bool(last["percent"]))


def _plain(text: str) -> str:
    """Full-width digits and signs as ASCII, every kind of minus as a hyphen."""
    return unicodedata.normalize("NFKC", text).replace("−", "-").replace("–", "-")


def _equal(found: _Number, reference: _Number) -> bool:
    if _close(found.value, reference.value):
        return True
    if found.percent == reference.percent:
        return False
    share, other = (found, reference) if found.percent else (reference, found)
    return _close(share.value / 100, other.value)


def _close(first: float, second: float) -> bool:
    if first.is_integer() and second.is_integer():
        return first == second
    return math.isclose(first, second, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-9)
