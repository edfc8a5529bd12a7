"""Answers and hits as plain data, for JSON: one shape for the server, the command line and whoever reads their output."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rag.core.trace import Doubted, Judged, NodeFinished, NodeStarted, Retrieved, TokensWritten, ToolCalled
from rag.core.types import Answer, Citation, Hit


def describe_hit(hit: Hit, number: int) -> dict[str, Any]:
    """``number`` is what the marker "[number]" refers to, from 1."""
    passage = hit.passage
    return {
        "number": number,
        "id": passage.id,
        "document": passage.document,
        "title": passage.title,
        "text": passage.text,
        "start": passage.start,
        "end": passage.end,
        "metadata": dict(passage.metadata),
        "score": hit.score,
        "retriever": hit.retriever,
    }


def describe_citation(citation: Citation) -> dict[str, Any]:
    """``start`` and ``end`` are character offsets of the marker in the answer's text."""
    return {
        "number": citation.number,
        "id": citation.passage.id,
        "document": citation.passage.document,
        "start": citation.start,
        "end": citation.end,
        "supported": round(citation.supported, 4),
        "valid": citation.valid,
    }


def describe_answer(answer: Answer) -> dict[str, Any]:
    """Everything but the text: sources, citations, notes and whether it is a refusal."""
    return {
        "sources": [describe_hit(hit, number) for number, hit in enumerate(answer.sources, 1)],
        "citations": [describe_citation(citation) for citation in answer.citations],
        "notes": list(answer.notes),
        "refused": answer.refused,
    }


def describe_event(event: object) -> dict[str, Any] | None:
    """A step that a method took before the answer was done: what it searched for and found, which tool it called. None for other events."""
    if isinstance(event, Retrieved):
        found = [{"id": h.passage.id, "document": h.passage.document, "title": h.passage.title, "score": h.score} for h in event.hits]
        return {"type": "retrieved", "query": event.query, "passages": found}
    if isinstance(event, ToolCalled):
        return {"type": "tool_called", "tool": event.tool, "input": event.input, "output": event.output, "error": event.error}
    return None


def describe_detail(event: object) -> dict[str, Any] | None:
    """What only someone who watches the pipeline at work wants to hear; None for other events. Of a node's error, only its kind: the rest
    may name paths and addresses of this machine."""
    if isinstance(event, NodeStarted):
        return {"type": "node_started", "node": event.node}
    if isinstance(event, NodeFinished):
        failed = {"error": event.span.error.partition(":")[0]} if event.span.error else {}
        return {"type": "node_finished", "node": event.node, "seconds": round(event.span.seconds, 6), **failed}
    if isinstance(event, TokensWritten):
        return {"type": "tokens", "tokens": _with_probabilities(event.tokens)}
    if isinstance(event, Doubted):
        weak = _with_probabilities(event.weak)
        return {"type": "doubted", "sentence": event.sentence, "weak": weak, "theta": event.theta, "queries": list(event.queries)}
    if isinstance(event, Judged):
        numbers = {name: round(getattr(event, name), 4) for name in ("score", "relevance", "support", "utility", "likelihood")}
        return {"type": "judged", "text": event.text, "source": event.source, **numbers, "dropped": event.dropped}
    return None


def _with_probabilities(tokens: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    return [(text, round(probability, 4)) for text, probability in tokens]


def as_answer(value: object) -> Answer:
    """What a pipeline returned, as an `Answer`: a pipeline may also end in plain text or in anything that can be written as text."""
    return value if isinstance(value, Answer) else Answer(value if isinstance(value, str) else str(value))
