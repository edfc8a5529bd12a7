"""What a span of a run's trace tells: a retrieval, of how many hits; a call of a model, asked how; whether it came to its end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from rag.core.trace import Span

_CALL = "call "
"""How the span of a call edge begins (`rag.core.calls`)."""
_MODEL_CALLS = ("chat", "score")
"""How that of a call of a model begins (`generators.models.calling`), before its name. No node can be named so."""
_REQUEST: Mapping[str, Callable[[str], float]] = {
    "max_tokens": int,
    "temperature": float,
    "top_p": float,
    "seed": int,
    "presence_penalty": float,
    "frequency_penalty": float,
}


def is_call(span: Span) -> bool:
    """Whether this is a call edge and not a node."""
    return span.node.startswith(_CALL)


def is_retrieval(span: Span) -> bool:
    """A call edge that was asked a query, or a node that searched an index."""
    return (is_call(span) and "query" in span.inputs) or "searches" in span.counts


def source(span: Span) -> str:
    """The node whose hits a retrieval gave."""
    return span.node.removeprefix(_CALL)


def asked_for(span: Span) -> int | None:
    """The ``k`` of a retrieval, where its last node has such a port and was given a number."""
    k = _last(span).inputs.get("k", "")
    return int(k) if k.isdecimal() else None


def hits(span: Span) -> int | None:
    """How many hits a retrieval gave; None if it gave something else or failed."""
    output = _last(span).output
    if output == "empty":
        return 0
    number, _, kind = output.partition(" ")
    if kind != "Hit" or not number.isdecimal():
        return None
    k = asked_for(span)
    return int(number) if k is None else min(int(number), k)


def operation(span: Span) -> str | None:
    """What a call of a model did, "chat" or "score"; None for other spans."""
    kind, space, _ = span.node.partition(" ")
    return kind if space and kind in _MODEL_CALLS else None


def request(span: Span) -> dict[str, float]:
    """How the model was asked to write, by the names of `rag.core.types.Sampling`, as far as the span tells."""
    found: dict[str, float] = {}
    for name, kind in _REQUEST.items():
        with suppress(KeyError, ValueError):  # a span of one's own may tell other things under these names
            found[name] = kind(span.inputs[name])
    return found


def ended(span: Span) -> bool:
    """Whether the span is closed. That of work that was cancelled a moment ago may still be open."""
    return span.seconds > 0 or bool(span.output or span.error)


def _last(span: Span) -> Span:
    return span.children[-1] if is_call(span) and span.children else span
