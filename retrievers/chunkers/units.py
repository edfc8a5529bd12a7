"""Cutting a text into units that fit a token budget, and packing the units into overlapping windows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rag.core.errors import InputError
from retrievers.chunkers.sentences import sentence_spans

Count = Callable[[str], int]


class Unit(NamedTuple):
    """``text[start:end]``, which takes ``tokens`` tokens and is not cut further."""

    start: int
    end: int
    tokens: int


# From the kindest cut to the harshest; each pattern matches one piece together with the separators after it, and its matches tile a text.
_LINES = re.compile(r"[^\n]*\n|[^\n]+")
_CLAUSES = re.compile(r"[^;；:：—]*[;；:：—]+\s*|[^;；:：—]+")
_PHRASES = re.compile(r"[^,，、]*[,，、]+\s*|[^,，、]+")
_WORDS = re.compile(r"\s*\S+\s*|\s+")
_LEVELS = (_LINES, _CLAUSES, _PHRASES, _WORDS)


def sentence_units(text: str, start: int, end: int, budget: int, count: Count) -> Iterator[Unit]:
    """Yield the sentences of ``text[start:end]``; one over ``budget`` tokens comes in pieces."""
    for a, b in sentence_spans(text[start:end]):
        yield from _fitting(text, start + a, start + b, budget, count)


def line_units(text: str, start: int, end: int, budget: int, count: Count) -> Iterator[Unit]:
    """Yield ``text[start:end]`` (code, a table) whole if it fits into ``budget`` tokens, else in runs of lines."""
    return _fitting(text, start, end, budget, count)


def windows(units: list[Unit], budget: int, overlap: int) -> Iterator[list[Unit]]:
    """Yield runs of units of at most ``budget`` tokens; a run begins with up to ``overlap`` units of the run before.

    The overlap takes at most half the budget, so that every run brings more new text than old or a unit that fits nowhere else.
    """
    first, n = 0, len(units)
    while first < n:
        after, used = first, 0
        while after < n and (after == first or used + units[after].tokens <= budget):
            used += units[after].tokens
            after += 1
        yield units[first:after]
        if after == n:
            return
        room = min(budget // 2, budget - units[after].tokens)
        following = after
        while following > first + 1 and after - following < overlap and units[following - 1].tokens <= room:
            following -= 1
            room -= units[following].tokens
        first = following


def _fitting(text: str, start: int, end: int, budget: int, count: Count, level: int = 0) -> Iterator[Unit]:
    tokens = _checked(count(text[start:end]))
    if tokens <= budget:
        yield Unit(start, end, tokens)
    elif level == len(_LEVELS):
        yield from _characters(text, start, end, budget, count)
    else:
        spans = [(start + m.start(), start + m.end()) for m in _LEVELS[level].finditer(text[start:end])]
        if len(spans) == 1:
            yield from _fitting(text, start, end, budget, count, level + 1)
        else:
            pieces = (piece for a, b in spans for piece in _fitting(text, a, b, budget, count, level + 1))
            yield from _merged(pieces, budget)


def _characters(text: str, start: int, end: int, budget: int, count: Count) -> Iterator[Unit]:
    """Cut a word that is too long (a key, an encoded image, a text without spaces) into slices; one character is never cut."""
    while start < end:
        size = min(budget, end - start)
        tokens = _checked(count(text[start : start + size]))
        while tokens > budget and size > 1:
            size = max(1, size // 2)
            tokens = _checked(count(text[start : start + size]))
        yield Unit(start, start + size, tokens)
        start += size


def _merged(pieces: Iterable[Unit], budget: int) -> Iterator[Unit]:
    """Join neighbouring pieces while they fit."""
    held: Unit | None = None
    for piece in pieces:
        if held is None:
            held = piece
        elif held.tokens + piece.tokens <= budget:
            held = Unit(held.start, piece.end, held.tokens + piece.tokens)
        else:
            yield held
            held = piece
    if held is not None:
        yield held


def _checked(tokens: int) -> int:
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        raise InputError(
            f"the tokenizer of a chunker must be a function from str to a number of tokens, but it returned {type(tokens).__name__}"
        )
    return tokens
