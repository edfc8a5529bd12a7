"""Answers that decline: the fixed sentence where there is nothing to answer from, and a model's own."""

from __future__ import annotations

from collections.abc import Sequence

from generators.prompts import render
from rag.core.trace import TextDelta, emit, note
from rag.core.types import Answer, Hit


def refusal(language: str, why: str, sources: Sequence[Hit] = ()) -> Answer:
    """The fixed sentence that says "I do not know", told to whoever listens; ``why`` goes to the reader and to the trace."""
    text = render("unknown", language)
    emit(TextDelta(text))
    note(why)
    return Answer(text, sources=tuple(sources), refused=True, notes=(why,))


def declines(text: str, language: str) -> bool:
    """Whether ``text`` opens with the sentence that prompts ask for when the passages do not hold the answer."""

    def plain(sentence: str) -> str:
        return sentence.casefold().replace("don't", "do not").replace("don’t", "do not").strip(" \n\t\"'“”.。")

    return plain(text).startswith(plain(render("unknown", language)))
