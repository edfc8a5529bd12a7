"""The first sentence of what a model wrote ahead, in English and Chinese."""

from __future__ import annotations

from retrievers.chunkers import sentence_spans

SHORTEST = 5
"""Characters below which a sentence is taken together with the next one: "1." or "A." is none (FLARE's code, section 1.2 of its sheet)."""


def first_sentence(text: str) -> str:
    """The beginning of ``text`` up to the end of its first sentence of at least 5 characters, without the white space behind it.

    All of ``text`` if no sentence ends in it. White space before the sentence belongs to it: so pieces join to the text they came from.
    """
    for _, end in sentence_spans(text):
        sentence = text[:end].rstrip()
        if len(sentence.strip()) >= SHORTEST:
            return sentence
    return text.rstrip()
