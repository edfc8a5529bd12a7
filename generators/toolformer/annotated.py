"""Texts with calls in them: what a Toolformer is trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SPAN = re.compile(r"\[([^\W\d]\w*\([^\[\]\n]*\)) -> [^\[\]\n]*\] ?")


@dataclass(frozen=True, slots=True)
class AnnotatedCall:
    """A call at character ``position`` of a text, its result, p(<API>) there, and how much it lowers the loss (in nats)."""

    position: int
    call: str
    result: str
    probability: float
    gain: float

    def __str__(self) -> str:
        return f" [{self.call} -> {self.result}]"


@dataclass(frozen=True, slots=True)
class Annotated:
    """C*: a text with calls. ``spans`` are theirs, so that the text without calls can be had back exactly, whatever it holds."""

    text: str
    spans: tuple[tuple[int, int], ...] = ()

    def without_calls(self) -> str:
        """C, byte for byte."""
        kept, at = [], 0
        for start, end in self.spans:
            kept.append(self.text[at:start])
            at = end
        return "".join([*kept, self.text[at:]])


def merge(text: str, calls: Iterable[AnnotatedCall]) -> Annotated:
    """``text`` with ``calls`` of all tools at their positions; of several calls of one tool at one place, that of the largest gain."""
    best: dict[tuple[int, str], AnnotatedCall] = {}
    for call in sorted(calls, key=lambda call: (call.position, -call.gain)):
        best.setdefault((call.position, call.call.partition("(")[0]), call)
    merged, spans, at = "", [], 0
    for call in best.values():
        merged += text[at : call.position]
        at = call.position
        spans.append((len(merged), len(merged) + len(str(call))))
        merged += str(call)
    return Annotated(merged + text[at:], tuple(spans))


def example_pair(answer: str) -> tuple[str, str]:
    """An example of an annotation from a text with calls and results: (without the calls, with the calls but not their results)."""
    return _SPAN.sub("", answer), _SPAN.sub(lambda match: f"[{match[1]}]{' ' if match[0].endswith(' ') else ''}", answer)
