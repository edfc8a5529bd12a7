"""ROUGE-L (Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004, section 3), sentence level, as an F-measure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.evaluate.metrics import cmrc
from rag.evaluate.metrics.registry import has_answers, register
from rag.evaluate.metrics.text import answer_text, is_chinese
from rag.evaluate.types import Outcome, Question

_WORD = re.compile(r"[^\W_]+")


@register("rouge_l", needs="a reference answer", fits=has_answers)
def rouge_l(question: Question, outcome: Outcome) -> float | None:
    """The best F1 over the references, of the longest common subsequence of words (Chinese: of characters).

    F1 = 2PR / (P + R) with P = LCS / words of the answer and R = LCS / words of the reference, so Lin's β is 1. Words are runs of letters
    and digits in lower case, without stemming; the whole text is one sequence.
    """
    split = _chinese_units if is_chinese(question) else _words
    answer = split(answer_text(outcome))
    return max(_f_measure(answer, split(reference)) for reference in question.answers)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _chinese_units(text: str) -> list[str]:
    return [unit for unit in cmrc.segments(text) if _WORD.search(unit)]


def _f_measure(answer: Sequence[str], reference: Sequence[str]) -> float:
    common = longest_common_subsequence(answer, reference)
    return 2 * common / (len(answer) + len(reference)) if common else 0.0


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Its length, by the bit-parallel method of Hyyrö ("Bit-parallel LCS-length computation revisited", 2004)."""
    positions: dict[str, int] = {}
    for index, unit in enumerate(first):
        positions[unit] = positions.get(unit, 0) | 1 << index
    all_ones = (1 << len(first)) - 1
    row = all_ones  # a zero bit marks a place in `first` at which the common subsequence grows
    for unit in second:
        matches = row & positions.get(unit, 0)
        row = (row + matches | row - matches) & all_ones
    return len(first) - row.bit_count()
