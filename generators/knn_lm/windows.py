"""Sliding windows: a text longer than the model's window is read in overlapping parts, so that each token is predicted once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rag.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens [begin, end) of a text are read together; of these, [first, end) are predicted here."""

    begin: int
    end: int
    first: int

    @property
    def predicted(self) -> int:
        """Number of tokens that are predicted here."""
        return self.end - self.first


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of ``size`` tokens that begin ``stride`` apart: a token is predicted from ``size - stride`` or more before it.

    Only the first tokens of a text have less, and its very first token is never predicted. Raises `InputError` unless
    1 ≤ stride < size.
    """

    size: int = 512
    stride: int = 384

    def __post_init__(self) -> None:
        if not 1 <= self.stride < self.size:
            raise InputError(f"a window of {self.size} tokens with a stride of {self.stride}: needed is 1 ≤ stride < size")

    def of(self, length: int) -> Iterator[Window]:
        """The windows of a text of ``length`` tokens; none for fewer than two."""
        begin, first = 0, 1
        while first < length:
            end = min(begin + self.size, length)
            yield Window(begin, end, first)
            begin, first = begin + self.stride, end
