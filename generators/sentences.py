"""The first sentence of what a model wrote ahead, in English and Chinese."""

from __future__ import annotations

import re

from retrievers.chunkers import sentence_spans

_CERTAIN = 16
"""Characters behind a sentence after which its end is certain, also where no white space follows a word."""
_WORD_BEHIND = re.compile(r"[^\W\d_]\s|[\u3400-\u9fff]{3}")
SHORTEST = 5
"""Characters below which a sentence is taken together with the next one: "1." or "A." is none (FLARE's code, section 1.2 of its sheet)."""


def beyond_first_sentence(text: str) -> bool:
    """Whether ``text`` has gone so far beyond its first sentence that what follows will not move the end of that.

    Whether "Inc." ends a sentence depends on the word behind it, so that word must be whole. For `Sampling.until`.
    """
    rest = text[len(first_sentence(text)) :].lstrip()
    return len(rest) > _CERTAIN or _WORD_BEHIND.search(rest) is not None


def first_sentence(text: str) -> str:
    """The beginning of ``text`` up to the end of its first sentence of at least 5 characters, without the white space behind it.

    All of ``text`` if no sentence ends in it. White space before the sentence belongs to it: so pieces join to the text they came from.
    """
    for _, end in sentence_spans(text):
        sentence = text[:end].rstrip()
        if len(sentence.strip()) >= SHORTEST:
            return sentence
    return text.rstrip()
