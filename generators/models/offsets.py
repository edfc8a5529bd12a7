"""Where each token lies in the text: found while the text is decoded, never by tokenising it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from rag.core.types import Token

_UNFINISHED = "�"


class Detokenizer:
    """Turns token ids into text one by one. A token that completes no character gives ``""``; the one that completes it gives it whole.

    ``decode(ids) -> str`` is the tokenizer's own, special tokens left out. ``context`` are the last ids of the prompt: tokenizers of the
    SentencePiece family write the space of a word only if something stands before it.
    """

    def __init__(self, decode: Callable[[list[int]], str], context: Sequence[int] = ()) -> None:
        self._decode = decode
        self._ids = list(context)
        self._known = decode(self._ids) if self._ids else ""

    def add(self, token: int) -> str:
        """Return what ``token`` adds to the text."""
        self._ids.append(token)
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED) or len(text) <= len(self._known):
            return ""
        piece = text[len(self._known) :]
        # Two decoded steps are enough context for the next token; a longer list would cost more with each token.
        self._ids = [token] if self._decode([token]) == piece else self._ids[-8:]
        self._known = self._decode(self._ids)
        return piece


def align(pieces: Sequence[str], text: str) -> list[tuple[int, int]]:
    """Return the span of each piece so that the spans tile ``text``.

    ``pieces`` are the tokens as the engine decoded them. One that the text does not hold at its place (a special token, the bytes of an
    unfinished character) gets an empty span; characters that belong to no piece go to the piece after them, or to the last one.
    """
    spans: list[tuple[int, int]] = []
    cursor = 0
    for piece in pieces:
        start = cursor
        found = text.find(piece, cursor, cursor + len(piece) + _SLACK) if piece else -1
        if found >= 0:
            cursor = found + len(piece)
        elif piece and cursor < len(text) and piece.startswith(text[cursor:]):
            cursor = len(text)  # a stop string cut the text within this token
        spans.append((start, cursor))
    if spans and cursor < len(text):
        last = max((i for i, (start, end) in enumerate(spans) if end > start), default=len(spans) - 1)
        spans[last] = (spans[last][0], len(text))
        spans[last + 1 :] = [(len(text), len(text))] * (len(spans) - last - 1)
    return spans


_SLACK = 4
"""Characters that may stand between two pieces: a space that a tokenizer drops when it decodes a word alone, replaced broken bytes."""


def cut_tokens(tokens: Sequence[Token], length: int) -> tuple[Token, ...]:
    """The tokens of a text that a stop string cut at ``length``: those beyond are dropped, the one astride is shortened."""
    kept: list[Token] = []
    for token in tokens:
        if token.start >= length:
            break
        end = min(token.end, length)
        kept.append(token if end == token.end else replace(token, text=token.text[: end - token.start], end=end))
    return tuple(kept)


class StopStrings:
    """Watches a growing text for strings that end it."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._longest = max((len(s) for s in stop), default=0)

    def find(self, text: str, new: int) -> int | None:
        """Where the stop string that completes first within the last ``new`` characters begins, or None."""
        best: tuple[int, int] | None = None
        for stop in self._stop:
            at = text.find(stop, max(0, len(text) - new - len(stop) + 1))
            if at >= 0 and (best is None or at + len(stop) < best[0]):
                best = (at + len(stop), at)
        return best[1] if best else None

    def safe(self, text: str) -> int:
        """How many characters of ``text`` cannot be part of a stop string that later text completes."""
        for held in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[-held:]
            if any(len(stop) > held and stop.startswith(tail) for stop in self._stop):
                return len(text) - held
        return len(text)
