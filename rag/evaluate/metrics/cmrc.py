"""The text rules of CMRC 2018 (Cui et al., EMNLP 2019), as its official script applies them.

A text is lower-cased and stripped. Exact match compares it without the listed punctuation; white space inside counts. For F1 every Han
character is a segment and what stands between them is split into words; the overlap is the longest run of segments that both hold (the
script calls it the longest common string: it is contiguous), so texts that share nothing score 0, two empty ones too.

The script splits words with NLTK's ``word_tokenize``; its Penn Treebank rules are in `words`. The one difference: NLTK first looks for
sentences with a trained model (Punkt), while here what stands between two Han characters is one sentence, of which only the last full
stop is a segment of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""What the script drops. Its list also holds "……", which never equals a single character: an ellipsis stays."""

_HAN = re.compile(r"[\u4e00-\u9fa5]")


def strip_punctuation(text: str) -> str:
    """``text`` in lower case without the listed punctuation."""
    return "".join(character for character in text.lower().strip() if character not in PUNCTUATION)


def segments(text: str) -> list[str]:
    """Han characters and words of ``text``, in order, without the listed punctuation.

    Punctuation is dropped before words are split, so "well-known" is one word.
    """
    found: list[str] = []
    between = ""
    for character in strip_punctuation(text):
        if _HAN.match(character):
            found += [*words(between), character]
            between = ""
        else:
            between += character
    return found + words(between)


def exact(prediction: str, references: Sequence[str]) -> float:
    """1.0 if ``prediction`` equals one of ``references`` without punctuation."""
    return float(strip_punctuation(prediction) in map(strip_punctuation, references))


def f1(prediction: str, references: Sequence[str]) -> float:
    """The best F1 over ``references``, of the longest common run of segments."""
    predicted = segments(prediction)
    return max((_overlap(predicted, segments(reference)) for reference in references), default=0.0)


def _overlap(prediction: list[str], reference: list[str]) -> float:
    common = _longest_common_run(prediction, reference)
    if common == 0:
        return 0.0
    precision, recall = common / len(prediction), common / len(reference)
    return 2 * precision * recall / (precision + recall)


def _longest_common_run(first: list[str], second: list[str]) -> int:
    longest = 0
    ending_here = [0] * (len(second) + 1)
    for segment in first:
        # from the right, so that the entry to the left still belongs to the segment before
        for position in range(len(second), 0, -1):
            ending_here[position] = ending_here[position - 1] + 1 if segment == second[position - 1] else 0
        longest = max(longest, *ending_here)
    return longest


# The rules of NLTK's word_tokenize that can apply to lower-case text without the punctuation above, in NLTK's order.
_SPACINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"([«‘„])", r" \1 "),
        (r'^"', " `` "),
        (r"([ (\[{<])(?:\"|'')", r"\1 `` "),
        (r"(?<!\w)'(?!(?:re|ve|ll|[mtsdn])\b)(?=\w)", "' "),
        (r"([^.])\.([\])}>\"'» ]*)\s*$", r"\1 . \2 "),
        (r",(\D)", r" , \1"),
        (r",$", " , "),
        (r"(\.{2,})", r" \1 "),
        (r"([;@#$%&\u2012-\u2015?!])", r" \1 "),
        (r"([^.])\.([\])}>\"']*)\s*$", r"\1 .\2 "),
        (r"([^'])' ", r"\1 ' "),
        (r"([][(){}<>])", r" \1 "),
        (r"^|$", " "),
        (r"(»)", r" \1 "),
        (r"(''|\")", " '' "),
        (r"\s+", " "),
        (r"([^' ])('[smd]?) ", r"\1 \2 "),
        (r"([^' ])('ll|'re|'ve|n't) ", r"\1 \2 "),
        (r"\b(can)(not)\b", r" \1 \2 "),
        (r"\b(d)('ye)\b", r" \1 \2 "),
        (r"\b(gim|lem)(me)\b", r" \1 \2 "),
        (r"\b(gon)(na)\b", r" \1 \2 "),
        (r"\b(got)(ta)\b", r" \1 \2 "),
        (r"\b(more)('n)\b", r" \1 \2 "),
        (r"\b(wan)(na)(?=\s)", r" \1 \2 "),
        (r" ('t)(is|was)\b", r" \1 \2 "),
    )
)


def words(text: str) -> list[str]:
    """The words and marks of ``text``, which is in lower case and one sentence, by the rules of the Penn Treebank."""
    for pattern, replacement in _SPACINGS:
        text = pattern.sub(replacement, text)
    return text.split()
