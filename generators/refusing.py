"""The answer of a method that found nothing to answer from."""

from __future__ import annotations

from generators.prompts import render
from rag.core.trace import TextDelta, emit, note
from rag.core.types import Answer


def refusal(language: str, why: str) -> Answer:
    """The fixed sentence that says "I do not know", told to whoever listens; ``why`` goes to the reader and to the trace."""
    text = render("unknown", language)
    emit(TextDelta(text))
    note(f"{why}; the model was not asked to answer")
    return Answer(text, refused=True, notes=(why,))
