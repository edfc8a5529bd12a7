"""What happened in a run: a span per node, counters that components add to it, and events for whoever listens.

A component calls `count`, `note` and `emit` without knowing whether anyone listens; they act on the span and the sink of the current run
through context variables, which follow tasks and worker threads.
"""

from __future__ import annotations

import math
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Union

from rag.core.types import Hit, Token


@dataclass(slots=True)
class Span:
    """One execution of one node (or of a call edge, which nests below its caller)."""

    node: str
    inputs: dict[str, str] = field(default_factory=dict)
    output: str = ""
    started: float = 0.0
    seconds: float = 0.0
    counts: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    error: str = ""
    children: list[Span] = field(default_factory=list)

    def total(self, counter: str) -> float:
        """The counter summed over this span and all below it: "calls", "retrievals", "prompt_tokens", …"""
        return self.counts.get(counter, 0) + sum(child.total(counter) for child in self.children)

    def all_notes(self) -> list[str]:
        """The remarks of this span and all below it, each with its node's name."""
        own = [f"{self.node}: {text}" for text in self.notes]
        return own + [text for child in self.children for text in child.all_notes()]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with ``at`` in seconds since the start of this span's own run."""
        return self._to_dict(self.started)

    def _to_dict(self, origin: float) -> dict[str, Any]:
        return {
            "node": self.node,
            "at": round(self.started - origin, 6),
            "seconds": round(self.seconds, 6),
            "inputs": self.inputs,
            "output": self.output,
            "counts": self.counts,
            "notes": self.notes,
            "error": self.error,
            "children": [child._to_dict(origin) for child in self.children],
        }

    def __str__(self) -> str:
        return "\n".join(self._lines(0))

    def _lines(self, depth: int) -> list[str]:
        counts = "".join(f"  {name}={value:g}" for name, value in self.counts.items())
        inputs = ", ".join(f"{name}={value!r}" for name, value in self.inputs.items())
        line = f"{'  ' * depth}{self.node}({inputs}) -> {self.error or self.output or '·'}  {self.seconds * 1000:.1f} ms{counts}"
        remarks = [f"{'  ' * (depth + 1)}! {text}" for text in self.notes]
        return [line, *remarks, *(text for child in self.children for text in child._lines(depth + 1))]


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of the final answer, in order; the pieces of a run join to the answer as the model wrote it."""

    text: str


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A retrieval that a method made while it wrote."""

    query: str
    hits: tuple[Hit, ...]


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """A call of a tool that a method made while it wrote. ``error`` says why there is no ``output``."""

    tool: str
    input: str
    output: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class TokensWritten:
    """The tokens of the text that was just emitted, in order, each with the probability in [0, 1] that the model gave it.

    A method may tidy the text: the tokens need not join to it.
    """

    tokens: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, tokens: Iterable[Token]) -> TokensWritten:
        """Without the tokens that complete no character."""
        return cls(tuple((token.text, math.exp(min(0.0, token.logprob))) for token in tokens if token.text))


@dataclass(frozen=True, slots=True)
class Doubted:
    """A sentence that a method wrote ahead and does not trust: ``weak`` are its tokens of a probability below ``theta``, ``queries`` what
    it searches for before it writes the sentence again."""

    sentence: str
    weak: tuple[tuple[str, float], ...]
    theta: float
    queries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a model thinks of a segment that it wrote from the passage ``source`` (an id; "" for none), and what that makes it worth.

    ``relevance``, ``support`` and ``likelihood`` lie in [0, 1], ``utility`` in [-1, 1]. ``dropped``: it cannot become part of the answer.
    """

    text: str
    source: str
    score: float
    relevance: float
    support: float
    utility: float
    likelihood: float
    dropped: bool = False


@dataclass(frozen=True, slots=True)
class NodeStarted:
    """A node began."""

    node: str


@dataclass(frozen=True, slots=True)
class NodeFinished:
    """A node ended; ``span`` holds its time, counters and notes."""

    node: str
    span: Span


Event = Union[TextDelta, TokensWritten, Retrieved, Doubted, Judged, ToolCalled, NodeStarted, NodeFinished]

current_span: ContextVar[Span | None] = ContextVar("graft_span", default=None)
_sink: ContextVar[Callable[[Any], object] | None] = ContextVar("graft_sink", default=None)
_tokens: ContextVar[bool] = ContextVar("graft_tokens", default=False)


def emit(event: Any) -> None:
    """Hand ``event`` to the listener of this run, if there is one."""
    sink = _sink.get()
    if sink is not None:
        sink(event)


def listening() -> bool:
    """Whether someone listens: only then is it worth streaming a generation."""
    return _sink.get() is not None


def listening_to_tokens() -> bool:
    """Whether someone listens who also wants `TokensWritten`: only then is it worth asking a model for probabilities to show."""
    return _tokens.get() and listening()


@contextmanager
def with_tokens(wanted: bool = True) -> Iterator[None]:
    """Whoever listens to what runs inside also wants `TokensWritten` from methods that do without probabilities themselves."""
    token = _tokens.set(wanted)
    try:
        yield
    finally:
        _tokens.reset(token)


@contextmanager
def listener(sink: Callable[[Any], object] | None) -> Iterator[None]:
    """Send the events of everything inside to ``sink``; None silences them (a helper call whose text is not the answer)."""
    token = _sink.set(sink)
    try:
        yield
    finally:
        _sink.reset(token)


@contextmanager
def undertone() -> Iterator[None]:
    """Hold back the text of everything inside: it goes to a later node and is not the answer. Other events pass."""
    sink = _sink.get()
    with (
        listener(sink and (lambda event: None if isinstance(event, (TextDelta, TokensWritten)) else sink(event))),
        with_tokens(False),
    ):
        yield


def count(**counters: float) -> None:
    """Add to the counters of the current span: ``count(calls=1, prompt_tokens=812, generated_tokens=64)``.

    ``calls``, ``prompt_tokens`` and ``generated_tokens`` are counted by models, ``retrievals`` by the method that retrieves (once, however
    many searches are fused for it) and ``searches`` by each index.
    """
    span = current_span.get()
    if span is not None:
        for name, value in counters.items():
            span.counts[name] = span.counts.get(name, 0) + value


def note(text: str) -> None:
    """Leave a remark on the current span (a dropped passage, a fallback)."""
    span = current_span.get()
    if span is not None:
        span.notes.append(text)


@contextmanager
def span(node: str) -> Iterator[Span]:
    """Open a span below the current one, for work inside a node that deserves its own line."""
    with measured(node) as child:
        token = current_span.set(child)
        try:
            yield child
        finally:
            current_span.reset(token)


@contextmanager
def measured(node: str) -> Iterator[Span]:
    """`span`, without making it the current one: for an asynchronous generator, which between two pieces runs in its caller's context
    and would leave its span there."""
    parent = current_span.get()
    child = Span(node, started=time.perf_counter())
    if parent is not None:
        parent.children.append(child)
    try:
        yield child
    except (CancelledError, GeneratorExit):
        child.error = "cancelled"
        raise
    except BaseException as error:
        child.error = f"{type(error).__name__}: {error}"
        raise
    finally:
        child.seconds = time.perf_counter() - child.started
