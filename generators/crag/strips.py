"""Passages cut into strips, the unit that CRAG keeps or drops."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Literal, get_args

from rag.core.errors import InputError
from retrievers.chunkers import sentence_spans

Cut = Literal["sentences", "words", "whole"]

_SENTENCES, _WORDS, _FEWEST = 3, 50, 10
"""Sentences and words in a strip, and the words that a last strip of words must have to stand alone: those of the released code."""
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\s\u3400-\u4dbf\u4e00-\u9fff]+")


def check_cut(cut: str) -> None:
    """Raise `InputError` unless passages can be cut that way."""
    if cut not in get_args(Cut):
        raise InputError(f"CRAG: strips must be one of {', '.join(map(repr, get_args(Cut)))}, not {cut!r}")


def strips_of(text: str, cut: Cut) -> list[str]:
    """``text`` in strips of three sentences, of 50 words (a Chinese character counts as one), or whole. Only white space gets lost.

    Source: CRAG, section 4.4 of the paper for the idea, `scripts/internal_knowledge_preparation.py` of its code for the sizes.
    """
    if cut == "whole":
        starts = [0]
    elif cut == "words":
        words = [word.start() for word in _WORD.finditer(text)]
        starts = words[::_WORDS]
        if len(starts) > 1 and (len(words) - 1) % _WORDS + 1 < _FEWEST:
            starts.pop()
    else:
        starts = [start for start, _ in sentence_spans(text)][::_SENTENCES]
    pieces = (text[start:end].strip() for start, end in pairwise([*starts, len(text)]))
    return [piece for piece in pieces if piece]
