"""Where a mean comes from: the same table for each kind of question, and the questions on which two pipelines differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.core.errors import InputError
from rag.evaluate.compare import Comparison, Estimate, mean_of
from rag.evaluate.types import Outcome, Question

BINS = 4
"""A number with many values, such as popularity, is cut at its quartiles."""

_NOWHERE = (float("inf"), "none")


@dataclass(frozen=True, slots=True)
class Group:
    """The questions that share a value: how many, and of each pipeline its failures and means."""

    value: str
    questions: int
    failed: Mapping[str, int]
    means: Mapping[str, Mapping[str, Estimate | None]]


@dataclass(frozen=True, slots=True)
class Differing:
    """A question on which two pipelines differ; a score is None where the pipeline failed."""

    question: Question
    first: Outcome
    second: Outcome
    scores: tuple[float | None, float | None]


def breakdown(comparison: Comparison, by: str) -> list[Group]:
    """The comparison for each group of `grouped`."""
    return [_group(comparison, value, indices) for value, indices in grouped(comparison.data.questions, by)]


def grouped(questions: Sequence[Question], by: str) -> list[tuple[str, list[int]]]:
    """The places of the questions for each value of ``by``: "type", "answerable", or a field of their metadata (such as "popularity").

    Groups come in the order of their values, those without one last. Raises `InputError` that lists what there is, if none has one.
    """
    groups: dict[tuple[float, str], list[int]] = {}
    for index, place in enumerate(_places([_reader(by)(question) for question in questions])):
        groups.setdefault(place, []).append(index)
    if set(groups) <= {_NOWHERE}:
        raise InputError(f"no question has '{by}'; the questions can be told apart by: {', '.join(_fields(questions))}")
    return [(place[1], groups[place]) for place in sorted(groups)]


def differing(comparison: Comparison, first: str, second: str, metric: str | None = None) -> list[Differing]:
    """The questions on which the two pipelines have different scores in ``metric`` (the first one if None), or only one of them failed.

    The largest differences come first; failures before them. Raises `InputError` for an unknown pipeline or metric.
    """
    metric = comparison.metrics[0] if metric is None else metric
    if metric not in comparison.metrics:
        raise InputError(f"'{metric}' was not measured here; metrics are: {', '.join(comparison.metrics)}")
    a, b = comparison.result(first), comparison.result(second)
    rows = zip(comparison.data.questions, a.outcomes, b.outcomes, zip(a.scores[metric], b.scores[metric], strict=True), strict=True)
    found = [Differing(*row) for row in rows if row[3][0] != row[3][1] or bool(row[1].error) != bool(row[2].error)]
    return sorted(found, key=_distance, reverse=True)


def _distance(item: Differing) -> float:
    a, b = item.scores
    return float("inf") if a is None or b is None else abs(a - b)


def _group(comparison: Comparison, value: str, indices: Sequence[int]) -> Group:
    failed = {result.name: sum(bool(result.outcomes[i].error) for i in indices) for result in comparison.results}
    means = {
        result.name: {name: mean_of([scores[i] for i in indices], comparison.seed) for name, scores in result.scores.items()}
        for result in comparison.results
    }
    return Group(value, len(indices), failed, means)


def _places(values: Sequence[Any]) -> list[tuple[float, str]]:
    """For each value its group: a number to sort by, and a label."""
    numbers = sorted(value for value in values if _is_number(value))
    if len(set(numbers)) > 2 * BINS and len(numbers) == sum(value is not None for value in values):
        cuts = [numbers[len(numbers) * step // BINS] for step in range(1, BINS)]
        return [_NOWHERE if value is None else _bin(value, cuts, [numbers[0], *cuts, numbers[-1]]) for value in values]
    return [_NOWHERE if value is None else (value if _is_number(value) else 0, str(value)) for value in values]


def _bin(value: float, cuts: Sequence[float], edges: Sequence[float]) -> tuple[float, str]:
    step = sum(value >= cut for cut in cuts)
    return step, f"{edges[step]:g} to {edges[step + 1]:g}"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _reader(by: str) -> Callable[[Question], Any]:
    if by in ("type", "kind"):
        return lambda question: question.kind or None
    if by == "answerable":
        return lambda question: "answerable" if question.answerable else "unanswerable"
    return lambda question: question.metadata.get(by)


def _fields(questions: Sequence[Question]) -> list[str]:
    fields = {"answerable": None, **({"type": None} if any(question.kind for question in questions) else {})}
    return [*fields, *dict.fromkeys(name for question in questions for name in question.metadata)]
