"""Several pipelines over one data set: means with intervals, and which differences are more than chance."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rag.core.errors import InputError
from rag.evaluate.metrics import check_fit, metric, score_all
from rag.evaluate.statistics import bootstrap_difference, bootstrap_mean, holm, permutation_test
from rag.evaluate.types import DataSet, Outcome

Scores = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True, slots=True)
class Estimate:
    """The mean over ``n`` questions with its 95% bootstrap interval."""

    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """``pipeline`` minus ``base`` in ``metric``, over the ``n`` questions that both have a score for.

    The interval is at 95%. ``p`` is that of the paired permutation test, ``corrected`` the same by Holm's method over all differences of
    the comparison.
    """

    metric: str
    base: str
    pipeline: str
    mean: float
    low: float
    high: float
    n: int
    p: float
    corrected: float


@dataclass(frozen=True, slots=True)
class Result:
    """One pipeline: its outcomes and scores in the order of the questions, and its means.

    A score is None where the question failed or the metric does not apply; a mean is None where no question has a score.
    """

    name: str
    outcomes: tuple[Outcome, ...]
    scores: Scores
    means: Mapping[str, Estimate | None]

    @property
    def failed(self) -> int:
        """Questions that ended in an error. They are in no mean."""
        return sum(bool(outcome.error) for outcome in self.outcomes)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The first of ``results`` is what the others are compared with."""

    data: DataSet
    metrics: tuple[str, ...]
    results: tuple[Result, ...]
    differences: tuple[Difference, ...]
    seed: int

    def result(self, name: str) -> Result:
        """The pipeline called ``name``. Raises `InputError`."""
        for result in self.results:
            if result.name == name:
                return result
        raise InputError(f"there is no pipeline '{name}' here; there are: {', '.join(result.name for result in self.results)}")


def compare(data: DataSet, outcomes: Mapping[str, Sequence[Outcome]], metrics: Sequence[str], *, seed: int = 0) -> Comparison:
    """Score ``outcomes`` of each pipeline, which are in the order of the questions, and compare each pipeline with the first.

    Costs (metrics without an upper bound) get means and intervals; the others are tested too. The whole table is one family of tests.
    Raises `InputError` for a metric that fits no question, or outcomes of other questions.
    """
    if not outcomes:
        raise InputError("there is no pipeline to compare")
    check_fit(data.questions, metrics)
    results = tuple(_result(data, name, tuple(found), tuple(metrics), seed) for name, found in outcomes.items())
    return Comparison(data, tuple(metrics), results, _differences(results, metrics, seed), seed)


def is_cost(name: str) -> bool:
    """Whether the metric counts something (calls, tokens, seconds) and is no score in a fixed range."""
    return metric(name).range[1] == float("inf")


def mean_of(values: Sequence[float | None], seed: int) -> Estimate | None:
    """The mean of what is not None, with its 95% bootstrap interval; None if nothing is."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    low, high = bootstrap_mean(known, seed=seed)
    return Estimate(math.fsum(known) / len(known), low, high, len(known))


def _result(data: DataSet, name: str, outcomes: tuple[Outcome, ...], metrics: tuple[str, ...], seed: int) -> Result:
    if [outcome.question for outcome in outcomes] != [question.id for question in data.questions]:
        raise InputError(f"the outcomes of '{name}' are not those of the questions of {data.name}, one for each and in their order")
    good = [(question, outcome) for question, outcome in zip(data.questions, outcomes, strict=True) if not outcome.error]
    found = score_all([q for q, _ in good], [o for _, o in good], metrics, language=data.language, partial=True)
    scores = {}
    for metric_name in metrics:
        values = iter(found[metric_name])
        scores[metric_name] = tuple(None if outcome.error else next(values) for outcome in outcomes)
    return Result(name, outcomes, scores, {metric_name: mean_of(values, seed) for metric_name, values in scores.items()})


def _differences(results: Sequence[Result], metrics: Sequence[str], seed: int) -> tuple[Difference, ...]:
    base = results[0]
    pairs = {}
    for name in metrics:
        for other in [] if is_cost(name) else results[1:]:
            both = [(b, a) for b, a in zip(base.scores[name], other.scores[name], strict=True) if a is not None and b is not None]
            if both:
                pairs[name, other.name] = [b for b, _ in both], [a for _, a in both]
    found = []
    tests = {place: permutation_test(before, after, seed=seed) for place, (before, after) in pairs.items()}
    for (place, (before, after)), corrected in zip(pairs.items(), holm(list(tests.values())), strict=True):
        mean = (math.fsum(after) - math.fsum(before)) / len(after)
        low, high = bootstrap_difference(before, after, seed=seed)
        found.append(Difference(place[0], base.name, place[1], mean, low, high, len(after), tests[place], corrected))
    return tuple(found)
