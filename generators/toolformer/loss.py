"""Which calls help: the weighted loss and the filter of Toolformer, section 2."""

from __future__ import annotations

from collections.abc import Sequence

WEIGHTS = (1 / 3, 4 / 15, 1 / 5, 2 / 15, 1 / 15)
"""w_t = w~_t / sum of all w~_s with w~_t = max(0, 1 - 0.2 t): only the five tokens behind a call matter (section 4.1)."""


def weighted_loss(logprobs: Sequence[float]) -> float:
    """L_i(z) = - sum over t of w_t · logprobs[t]; ``logprobs`` are those of x_i, x_{i+1}, … after z and x_1..x_{i-1}."""
    return -sum(weight * logprob for weight, logprob in zip(WEIGHTS, logprobs, strict=False))


def gain(with_result: float, without_result: float, without_call: float) -> float:
    """L- less L+: what the call with its result saves against the better of no call and the call alone."""
    return min(without_call, without_result) - with_result


def likely_positions(probabilities: Sequence[float], tau_s: float, k: int) -> list[int]:
    """The at most ``k`` indices with the largest probability above ``tau_s``, in ascending order; of equal ones the first."""
    above = [index for index, probability in enumerate(probabilities) if probability > tau_s]
    return sorted(sorted(above, key=lambda index: -probabilities[index])[:k])
