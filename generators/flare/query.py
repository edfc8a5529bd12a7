"""What to search for when a sentence is unsure: the sentence without its doubtful words, or a question for each of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate

from generators.flare.sentence import Piece

GAP = 5
"""Doubtful pieces less than this far apart belong to one term (the authors' code)."""

_WORD = re.compile(r"[^\W_\u3400-\u4dbf\u4e00-\u9fff]+")


def doubtful(pieces: Sequence[Piece], beta: float) -> list[int]:
    """The indices of the ``pieces`` with a probability below ``beta``."""
    return [index for index, piece in enumerate(pieces) if piece.probability < beta]


def masked(pieces: Sequence[Piece], beta: float, most: int) -> str:
    """The implicit query: ``pieces`` joined, with one space for each doubtful one, of which the last ``most`` tokens (section 3.2)."""
    hidden = set(doubtful(pieces, beta))
    texts: list[str] = []
    tokens = 0
    for index in reversed(range(len(pieces))):
        if tokens >= most:
            break
        tokens += 0 if index in hidden else pieces[index].tokens
        texts.append(" " if index in hidden else pieces[index].text)
    return "".join(reversed(texts)).strip()


def terms(pieces: Sequence[Piece], beta: float) -> list[str]:
    """The doubtful stretches of the sentence, as whole words and without repetition; those of punctuation alone are left out.

    A token may be a part of a word. The authors' code has a model complete it to a phrase; here it grows to the word's ends.
    """
    stretches: list[list[int]] = []
    for index in doubtful(pieces, beta):
        if stretches and index - stretches[-1][-1] < GAP:
            stretches[-1].append(index)
        else:
            stretches.append([index])
    text = "".join(piece.text for piece in pieces)
    ends = [0, *accumulate(len(piece.text) for piece in pieces)]
    words = [word.span() for word in _WORD.finditer(text)]
    found = (_grown(text, ends[stretch[0]], ends[stretch[-1] + 1], words) for stretch in stretches)
    return list(dict.fromkeys(term for term in found if re.search(r"\w", term)))


def _grown(text: str, start: int, end: int, words: Sequence[tuple[int, int]]) -> str:
    first = min([start, *(left for left, right in words if left < start < right)])
    last = max([end, *(right for left, right in words if left < end < right)])
    return text[first:last].strip()
