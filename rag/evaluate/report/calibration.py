"""Whether confidence means anything: the score of answers against how sure the model was of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rag.evaluate.compare import Result
from rag.evaluate.types import Outcome

BINS = 10

LOGPROB, TOKENS = "logprob", "logprob_tokens"
"""Counters of an outcome: the sum of its tokens' log-probabilities, and how many tokens that is."""


@dataclass(frozen=True, slots=True)
class Bin:
    """The ``n`` answers with confidence from ``low`` to ``high``: their mean confidence and mean score."""

    low: float
    high: float
    n: int
    confidence: float
    score: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The bins that hold answers, and the expected calibration error: the mean gap between confidence and score."""

    bins: tuple[Bin, ...]
    error: float


def confidence(outcome: Outcome) -> float | None:
    """exp of the mean log-probability of the tokens that were written, in [0, 1]; None where it was not counted, or makes no sense."""
    tokens, logprob = outcome.counts.get(TOKENS, 0), outcome.counts.get(LOGPROB)
    if outcome.error or logprob is None or not tokens > 0 or not logprob <= 0:
        return None
    return math.exp(logprob / tokens)


def calibration(result: Result, metric: str) -> Calibration | None:
    """Ten bins of equal width (Guo et al., "On Calibration of Modern Neural Networks", 2017, section 2); None if no answer has both."""
    pairs = [
        (sure, score)
        for outcome, score in zip(result.outcomes, result.scores[metric], strict=True)
        if score is not None and (sure := confidence(outcome)) is not None
    ]
    held: dict[int, list[tuple[float, float]]] = {}
    for sure, score in pairs:
        held.setdefault(min(int(sure * BINS), BINS - 1), []).append((sure, score))
    bins = tuple(_bin(place, held[place]) for place in sorted(held))
    return Calibration(bins, math.fsum(abs(b.confidence - b.score) * b.n for b in bins) / len(pairs)) if pairs else None


def _bin(place: int, pairs: list[tuple[float, float]]) -> Bin:
    sure, score = (math.fsum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return Bin(place / BINS, (place + 1) / BINS, len(pairs), sure, score)
