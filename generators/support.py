"""How much of a claim a passage holds, by words: cheap, deterministic, the same for every model.

It is a check against invented facts and misplaced citations, not a proof of entailment: a passage that denies the claim in the claim's
own words passes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

_HAN = r"\u3400-\u4dbf\u4e00-\u9fff"
_UNIT = re.compile(rf"(?P<number>\d+(?:[.,:]\d+)*)|(?P<han>[{_HAN}]+)|(?P<word>[^\W\d_{_HAN}]+)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LIST_NUMBER = re.compile(r"^\s*\(?\d{1,2}[.)、](?=\s|$)")
_HAN_FUNCTION = re.compile("[的了是在和与及也就都而着吗呢啊]")

_NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
# Negations are content: "was not built" and "was built" are different claims.
_FUNCTION_WORDS = """
a about above after again all also am an and any are as at be because been before being below between both but by can could did do
does during each for from further had has have he her here hers him his how however i if in into is it its itself just me more most
my of off on once only or other our out over own s same she should so some such t than that the their them then there therefore
these they this those through to too under until up upon very was we were what when where which while who whom whose why will with
would you your according answer passage passages source sources question mentioned states stated based given
"""
_FUNCTION = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True, slots=True)
class Support:
    """``share`` in [0, 1] of the claim's content words that the passage holds; ``missing_numbers`` are those that it lacks."""

    share: float
    missing_numbers: tuple[str, ...] = ()

    def passes(self, threshold: float) -> bool:
        """Whether the claim may stand: enough of its words are there, and every number."""
        return self.share >= threshold and not self.missing_numbers


def support(claim: str, passage: str) -> Support:
    """Compare ``claim`` with ``passage``. A claim without content words ("Yes.") cannot be checked and has share 0.

    Words are compared by stem, Chinese by character pairs. A number written in digits must stand in the passage, in digits or (up to
    twelve) as an English word; thousands separators do not matter.
    """
    wanted, numbers = content(_LIST_NUMBER.sub("", claim))
    if not wanted and not numbers:
        return Support(0.0)
    held, held_numbers = content(passage)
    held_numbers |= {str(value) for value, word in enumerate(_NUMBER_WORDS) if _stem(word) in held}
    held |= {_stem(word) for value, word in enumerate(_NUMBER_WORDS) if str(value) in held_numbers}
    missing = numbers - held_numbers
    found = len(wanted & held) + len(numbers) - len(missing)
    return Support(found / (len(wanted) + len(numbers)), tuple(sorted(missing)))


def content(text: str) -> tuple[set[str], set[str]]:
    """The content words of ``text`` (stems, and pairs of Chinese characters) and its numbers in digits."""
    words: set[str] = set()
    numbers: set[str] = set()
    for match in _UNIT.finditer(_THOUSANDS.sub("", unicodedata.normalize("NFKC", text).casefold())):
        if match["number"]:
            numbers.add(match["number"])
        elif match["word"]:
            if match["word"] not in _FUNCTION:
                words.add(_stem(match["word"]))
        else:
            for run in _HAN_FUNCTION.split(match["han"]):
                words.update(run[i : i + 2] for i in range(max(len(run) - 1, bool(run))))
    return words, numbers


@cache
def _stemmer() -> Any:
    import Stemmer

    return Stemmer.Stemmer("english")


def _stem(word: str) -> str:
    stem: str = _stemmer().stemWord(word)
    return stem
