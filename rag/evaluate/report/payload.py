"""What the report embeds: the figures of the comparison, and as many single questions, passages and traces as fit."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rag.core.types import Passage
from rag.evaluate.account import account
from rag.evaluate.breakdown import Group, breakdown
from rag.evaluate.compare import Comparison, Result, is_cost
from rag.evaluate.metrics import metric
from rag.evaluate.report.calibration import calibration, confidence
from rag.evaluate.types import DataSet, Outcome, Question

TEXT = 20_000
"""Characters that an answer, question or error keeps."""
PASSAGE = 4_000
RETRIEVED = 50
"""Passages that an outcome lists."""
SPANS = 200
"""Spans that a trace keeps."""
DETAIL = 400
"""Characters that an input, output or note of a span keeps."""
ERRORS = 50
"""Different errors that a pipeline's failures list."""

_UNSAFE = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


@dataclass(slots=True)
class _Room:
    """Bytes that are left, and what no longer fitted."""

    left: int
    dropped: Counter[str] = field(default_factory=Counter)

    def takes(self, record: Any, kind: str) -> bool:
        """Whether ``record`` still fits. After the first of a kind that does not, none of that kind does: what is kept is a beginning."""
        size = 0 if self.dropped[kind] else len(embedded(record).encode())
        if self.dropped[kind] or size > self.left:
            self.dropped[kind] += 1
            return False
        self.left -= size
        return True


def payload(
    comparison: Comparison,
    *,
    configurations: Mapping[str, Mapping[str, Any]],
    rates: Mapping[str, float | None],
    settings: Mapping[str, Any],
    groups: Mapping[str, Sequence[Group]],
    limit: int,
) -> dict[str, Any]:
    """The report's data: first questions, then the passages they show, then traces, up to ``limit`` bytes; "cut" says what is left out.

    The figures are those of `rag.evaluate.account.account`, with failures counted by error. Questions of several types are broken
    down by type.
    """
    if len({question.kind for question in comparison.data.questions}) > 1 and "type" not in groups:
        groups = {**groups, "type": breakdown(comparison, "type")}
    figures = account(comparison, configurations=configurations, rates=rates, settings=settings, groups=groups, differing=())
    del figures["differing"]  # the browser of questions shows them
    for pipeline, result in zip(figures["pipelines"], comparison.results, strict=True):
        pipeline["failures"] = _failures(result)
    room = _Room(limit)
    rows = enumerate(zip(comparison.data.questions, *(result.outcomes for result in comparison.results), strict=True))
    questions = [record for i, (question, *_) in rows if room.takes(record := _question(comparison, i, question), "questions")]
    passages = _passages(comparison.data, questions, room)
    for i, record in enumerate(questions):
        for outcome, result in zip(record["outcomes"], comparison.results, strict=True):
            trace = result.outcomes[i].trace
            outcome["trace"] = kept if trace and room.takes(kept := _trace(trace, _Spans(SPANS)), "traces") else None
    return {
        **figures,
        "metrics": [_metric(name) for name in comparison.metrics],
        "calibration": _calibration(comparison),
        "questions": questions,
        "passages": passages,
        "cut": [_missing(count, kind, limit) for kind, count in room.dropped.items() if count],
    }


def embedded(data: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever its strings hold; what JSON has no number for becomes null."""
    text = json.dumps(_plain(data), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, int, float)) else str(value)


def _metric(name: str) -> dict[str, Any]:
    about = metric(name)
    low, high = about.range
    best = high if about.higher_is_better else low
    return {
        "name": name,
        "cost": is_cost(name),
        "low": low,
        "high": None if is_cost(name) else high,
        "best": None if is_cost(name) else best,
        "higher_is_better": about.higher_is_better,
        "description": about.description,
    }


def _failures(result: Result) -> list[dict[str, Any]]:
    errors = Counter(_short(outcome.error, TEXT) for outcome in result.outcomes if outcome.error)
    most = errors.most_common(ERRORS)
    rest = errors.total() - sum(count for _, count in most)
    others = [(f"{len(errors) - ERRORS:,} other errors", rest)] if rest else []
    return [{"error": error, "questions": count} for error, count in (*most, *others)]


def _calibration(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """By pipeline and score; without the pipelines whose outcomes have no confidence."""
    scores = [name for name in comparison.metrics if metric(name).range == (0, 1) and metric(name).higher_is_better]
    found = {
        result.name: {name: asdict(one) for name in scores if (one := calibration(result, name)) is not None}
        for result in comparison.results
    }
    return {name: of_metric for name, of_metric in found.items() if of_metric}


def _question(comparison: Comparison, place: int, question: Question) -> dict[str, Any]:
    return {
        "id": question.id,
        "text": _short(question.question, TEXT),
        "answers": [_short(answer, TEXT) for answer in question.answers],
        "parts": [[_short(answer, TEXT) for answer in part] for part in question.parts],
        "gold": list(question.gold),
        "answerable": question.answerable,
        "kind": question.kind,
        "outcomes": [_outcome(result, place) for result in comparison.results],
    }


def _outcome(result: Result, place: int) -> dict[str, Any]:
    outcome: Outcome = result.outcomes[place]
    return {
        "answer": _short(outcome.answer, TEXT),
        "refused": outcome.refused,
        "error": _short(outcome.error, TEXT),
        "citations": [list(citation) for citation in outcome.citations[:RETRIEVED]],
        "retrieved": list(outcome.retrieved[:RETRIEVED]),
        "retrieved_in_all": len(outcome.retrieved),
        "seconds": outcome.seconds,
        "counts": dict(outcome.counts),
        "confidence": confidence(outcome),
        "scores": [values[place] for values in result.scores.values()],
        "trace": None,
    }


def _passages(data: DataSet, questions: Sequence[Mapping[str, Any]], room: _Room) -> dict[str, Any]:
    """Those that a question shows, by the id it shows them under; that of a document stands for the document's first passage."""
    known: dict[str, Passage] = {}
    for passage in data.passages:
        known.setdefault(passage.document, passage)
    known |= {passage.id: passage for passage in data.passages}
    wanted = dict.fromkeys(
        id
        for question in questions
        for ids in (question["gold"], *(outcome["retrieved"] + [c[0] for c in outcome["citations"]] for outcome in question["outcomes"]))
        for id in ids
    )
    found: dict[str, Any] = {}
    for id in wanted:
        if id in known:
            record = {"title": known[id].title, "text": _short(known[id].text, PASSAGE)}
            if room.takes({id: record}, "passages"):
                found[id] = record
    return found


@dataclass(slots=True)
class _Spans:
    """Spans that a trace may still keep."""

    left: int


def _trace(span: Mapping[str, Any], spans: _Spans) -> dict[str, Any]:
    spans.left -= 1
    below = span.get("children") or []
    kept = []
    for child in below:
        if spans.left <= 0:
            break
        kept.append(_trace(child, spans))
    return {
        "node": _short(str(span.get("node", "")), DETAIL),
        "at": span.get("at"),
        "seconds": span.get("seconds"),
        "inputs": {_short(str(name), DETAIL): _short(str(value), DETAIL) for name, value in (span.get("inputs") or {}).items()},
        "output": _short(str(span.get("output") or ""), DETAIL),
        "counts": dict(span.get("counts") or {}),
        "notes": [_short(str(note), DETAIL) for note in (span.get("notes") or [])[:RETRIEVED]],
        "error": _short(str(span.get("error") or ""), DETAIL),
        "children": kept,
        "left_out": len(below) - len(kept),
    }


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}… [{len(text) - length:,} more characters]"


def _missing(count: int, kind: str, limit: int) -> str:
    return f"{count:,} {kind} are not in this file, which is limited to {limit:,} bytes of data; the figures count all questions."
