"""Exact match of the answer that a chain of thought ends in, as for BIG-Bench Hard (Suzgun et al., ACL Findings 2023, section 3).

SQuAD's normalisation would not do: it makes "(A)" an article, "-35" the same as "35" and brackets nothing at all.
"""

from __future__ import annotations

import re

from rag.evaluate.metrics.registry import has_answers, register
from rag.evaluate.metrics.text import answer_text
from rag.evaluate.types import Outcome, Question

_ANNOUNCED = re.compile(r"\banswer(?: is:?|:)")
_SENTENCE_END = re.compile(r"\.(?:\s|$)|\n")
_OPTION = re.compile(r"\(([a-z])\)")
_CHOSEN = re.compile(r"\(([a-z])\)|([a-z])(?:\)|$)")


@register("final_answer", needs="a reference answer", fits=has_answers)
def final_answer(question: Question, outcome: Outcome) -> float | None:
    """1 if what follows the last "answer is" (the whole text without it) is a reference; case and white space do not count.

    The sentence ends at a full stop. Where the reference is an option, "(B)", it is enough to open with it: "(B) 05/01/2021", "B".
    """
    text = answer_text(outcome).lower()
    said = _bare(_SENTENCE_END.split(_ANNOUNCED.split(text)[-1].strip(), maxsplit=1)[0])
    return float(any(_agrees(said, _bare(reference.lower())) for reference in question.answers))


def _bare(text: str) -> str:
    return " ".join(text.strip(" \t\n\"'“”*").removesuffix(".").split())


def _agrees(said: str, reference: str) -> bool:
    option = _OPTION.fullmatch(reference)
    if not option:
        return bool(said) and said == reference
    chosen = _CHOSEN.match(said)
    return chosen is not None and (chosen[1] or chosen[2]) == option[1]
