"""A prompt whose answer has begun: what methods send that retrieve, think or call tools between two pieces of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rag.core.protocols import LanguageModel
from rag.core.types import Message, Prompt


def begun(model: LanguageModel, chat: Sequence[Message], answer: str) -> Prompt:
    """``chat``, whose answer begins with ``answer``.

    A model with the capability "prefix" continues exactly there. To another the beginning is shown at the end of the last user message; it
    may then repeat it or rephrase it, which such servers leave no way to avoid.
    """
    if not answer:
        return list(chat)
    if "prefix" in model.capabilities:
        return [*chat, Message("assistant", answer)]
    last = chat[-1]
    return [*chat[:-1], replace(last, content=f"{last.content}\n{answer}")]
