"""What all chunkers share: the contract, the budget and how a window of units becomes a passage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from rag.core.errors import InputError
from rag.core.types import Document, Passage
from retrievers.chunkers.tokens import approximate_tokens
from retrievers.chunkers.units import Count, Unit


@runtime_checkable
class Chunker(Protocol):
    """Cuts a document into passages."""

    @property
    def identity(self) -> str:
        """Class and arguments: two chunkers with one identity cut a document the same way."""
        ...

    def chunk(self, document: Document) -> list[Passage]:
        """Return the passages in order. ``passage.text == document.text[passage.start:passage.end]``; a blank document has none."""
        ...


@dataclass(frozen=True, slots=True)
class Budget:
    """At most ``max_tokens`` tokens a passage, the last ``overlap`` units repeated in the next; ``count`` measures a text."""

    max_tokens: int
    overlap: int
    count: Count


def budget_of(owner: object, max_tokens: int, overlap: int, tokenizer: Count | None) -> Budget:
    """Check the arguments of a chunker; raises `InputError` that names the class and what is allowed."""
    name = type(owner).__name__
    for key, value, least in (("max_tokens", max_tokens, 1), ("overlap", overlap, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InputError(f"{name}: {key} must be a whole number of at least {least}, not {value!r}")
    if overlap >= max_tokens:
        raise InputError(f"{name}: overlap ({overlap} sentences) must be smaller than max_tokens ({max_tokens})")
    if tokenizer is not None and not callable(tokenizer):
        raise InputError(f"{name}: tokenizer must be a function from str to a number of tokens, not {type(tokenizer).__name__}")
    return Budget(max_tokens, overlap, tokenizer or approximate_tokens)


def identity_of(owner: object, max_tokens: int, overlap: int, tokenizer: Count | None) -> str:
    """``Class(max_tokens=…, overlap=…)``, with the tokenizer's own ``identity`` (or its qualified name) if one was given."""
    parts = [f"max_tokens={max_tokens}", f"overlap={overlap}"]
    if tokenizer is not None:
        kind = tokenizer if hasattr(tokenizer, "__qualname__") else type(tokenizer)
        parts.append(f"tokenizer={getattr(tokenizer, 'identity', None) or f'{kind.__module__}.{kind.__qualname__}'}")
    return f"{type(owner).__name__}({', '.join(parts)})"


def passage_of(document: Document, ordinal: int, window: list[Unit], title: str) -> Passage | None:
    """The passage that ``window`` spans, without the white space around it; None if nothing else is there."""
    start, end = window[0].start, window[-1].end
    text = document.text[start:end]
    start += len(text) - len(text.lstrip())
    text = text.strip()
    if not text:
        return None
    return Passage(f"{document.id}:{ordinal}", text, document.id, title, start, start + len(text), document.metadata)
