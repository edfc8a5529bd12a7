"""The first sentence of a look-ahead, with the probability of everything in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from generators.sentences import first_sentence
from rag.core.types import Generation, Token


@dataclass(frozen=True, slots=True)
class Piece:
    """What one token adds to the sentence, and the probability in [0, 1] that the model gave it.

    ``tokens`` is 1, or more where a character took several tokens: they stand or fall together, with the lowest of their probabilities.
    """

    text: str
    probability: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Sentence:
    """``text`` begins with the white space that stood before the sentence; the texts of ``pieces`` join to it.

    ``tokens`` are those that it is made of, and ``last`` says that the model ends its answer with it.
    """

    text: str
    pieces: tuple[Piece, ...]
    tokens: tuple[Token, ...]
    last: bool

    @property
    def weakest(self) -> Piece:
        """The piece that the model was least sure of. An empty sentence, or one without log-probabilities, is of probability 0."""
        return min(self.pieces, key=lambda piece: piece.probability, default=Piece("", 0.0, 0))


def sentence_of(ahead: Generation) -> Sentence:
    """The first sentence of ``ahead``. White space behind it is left for the next one (section 3.2 of the paper)."""
    text = first_sentence(ahead.text)
    # By its start, not its end: a token that completes no character has an empty span, and belongs to the character that it begins.
    tokens = tuple(token for token in ahead.tokens if token.start < len(text))
    nothing_behind = text == ahead.text.rstrip()
    return Sentence(text, tuple(_pieces(tokens, len(text))), tokens, last=not text or (ahead.finish == "stop" and nothing_behind))


def _pieces(tokens: Sequence[Token], length: int) -> Iterator[Piece]:
    probability, size = 1.0, 0
    for token in tokens:
        probability = min(probability, math.exp(token.logprob))
        size += 1
        if token.end > token.start:
            yield Piece(token.text[: length - token.start], probability, size)
            probability, size = 1.0, 0
