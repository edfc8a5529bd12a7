"""The text rules of SQuAD (Rajpurkar et al., EMNLP 2016; version 2.0: Rajpurkar et al., ACL 2018), as its official script applies them.

Normalisation: lower case; ASCII punctuation removed (not replaced, so "well-known" is one word); the words a, an and the removed; white
space collapsed. Versions 1.1 and 2.0 differ only for references in which nothing is left ("The"): version 2.0, followed here, drops
them, and two texts in which nothing is left agree.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def normalise(text: str) -> str:
    """``text`` as SQuAD compares it."""
    bare = text.lower().translate(_WITHOUT_PUNCTUATION)
    return " ".join(_ARTICLE.sub(" ", bare).split())


def exact(prediction: str, references: Sequence[str]) -> float:
    """1.0 if ``prediction`` equals one of ``references`` after normalisation. Without references, "" is the right prediction."""
    return float(normalise(prediction) in _normalised(references))


def f1(prediction: str, references: Sequence[str]) -> float:
    """The best F1 over ``references``, of bags of words. Without references, "" is the right prediction."""
    words = normalise(prediction).split()
    return max(_overlap(words, reference.split()) for reference in _normalised(references))


def _normalised(references: Sequence[str]) -> list[str]:
    return [reference for reference in map(normalise, references) if reference] or [""]


def _overlap(prediction: list[str], reference: list[str]) -> float:
    if not prediction or not reference:
        return float(prediction == reference)
    common = (Counter(prediction) & Counter(reference)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    return 2 * precision * recall / (precision + recall)
