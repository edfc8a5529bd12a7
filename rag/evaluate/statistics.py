"""Chance in a comparison: bootstrap intervals, a paired permutation test, and Holm's correction for several comparisons.

Everything is drawn from a seed and does not depend on the order of the questions. Values are one number per question, without the
questions to which a metric does not apply; NaN and infinity are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rag.core.errors import InputError

Values = Sequence[float] | NDArray[np.float64]

EXACT_UP_TO = 12
"""With so many differing pairs or fewer, all 2^n sign patterns are counted instead of drawn."""

_CHUNK = 2_000_000  # random numbers held at once: 16 MB


def bootstrap_mean(values: Values, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3).

    Percentiles rather than BCa: for means of a hundred bounded scores the two hardly differ, and percentiles stay defined where all values
    are equal. The interval of a single value is that value, twice, and says nothing. Raises `InputError` for no values, NaN, infinity, and
    settings out of range.
    """
    sample = np.sort(_checked(values, "values"))
    _check_draws(seed, resamples, "resamples")
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, not {level!r}")
    rng = np.random.default_rng(seed)
    chunks = _rows(resamples, sample.size)
    means = np.concatenate([sample[rng.integers(0, sample.size, (rows, sample.size))].mean(axis=1) for rows in chunks])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    # rounding may put the percentiles of equal values a last digit beside them
    return max(float(low), float(sample[0])), min(float(high), float(sample[-1]))


def bootstrap_difference(
    first: Values, second: Values, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """The bootstrap interval of the mean of ``second - first``: questions are drawn, and the two values of a question stay together.

    Raises `InputError` like `bootstrap_mean`, and if the lengths differ.
    """
    return bootstrap_mean(_differences(first, second), seed=seed, resamples=resamples, level=level)


def permutation_test(first: Values, second: Values, *, seed: int = 0, flips: int = 10_000) -> float:
    """Two-sided p-value of "no difference": how often the mean difference is as large when each pair is swapped at random.

    The paired sign-flip test (Fisher 1935; Edgington and Onghena, "Randomization Tests", 2007). Pairs that do not differ change nothing
    under a flip and are left out. With at most `EXACT_UP_TO` differing pairs all sign patterns are counted and p is exact; else ``flips``
    are drawn and the pattern that was observed counts as one more of them, so p is never 0 (Phipson and Smyth, 2010). Swapping
    ``first`` and ``second`` gives the same p. Raises `InputError` like `bootstrap_difference`.
    """
    difference = _differences(first, second)
    _check_draws(seed, flips, "flips")
    sizes = np.sort(np.abs(difference[difference != 0]))
    if sizes.size == 0:
        return 1.0
    # a sum of rounded numbers depends on their order: what equals the observed sum but for rounding counts as equal
    observed = abs(float(difference.sum())) - 1e-9 * float(sizes.sum())
    if sizes.size <= EXACT_UP_TO:
        patterns = np.arange(2**sizes.size)[:, None] >> np.arange(sizes.size) & 1
        return float(np.mean(_flipped(patterns, sizes) >= observed))
    rng = np.random.default_rng(seed)
    extreme = sum(
        int(np.count_nonzero(_flipped(rng.integers(0, 2, (rows, sizes.size), dtype=np.int8), sizes) >= observed))
        for rows in _rows(flips, sizes.size)
    )
    return (extreme + 1) / (flips + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number (Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979), in the same order.

    Comparing an adjusted value with 0.05 holds the chance of any false claim at 5%. Raises `InputError` for a value outside [0, 1].
    """
    given = np.asarray(p_values, dtype=float)
    if given.ndim != 1 or not np.all((given >= 0) & (given <= 1)):
        raise InputError(f"p-values must be numbers from 0 to 1, not {list(p_values)!r}")
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(given.size, 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(stepped, 1.0)
    return [float(p) for p in adjusted]


def _flipped(patterns: NDArray[np.integer], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The absolute sum of ``sizes`` under each row of ``patterns``, in which 1 keeps a sign and 0 turns it."""
    sums: NDArray[np.float64] = np.abs(2 * (patterns.astype(float) @ sizes) - sizes.sum())
    return sums


def _rows(total: int, width: int) -> Iterator[int]:
    """Numbers of rows, ``total`` together, such that a chunk of them times ``width`` stays small."""
    rows = max(1, _CHUNK // width)
    for start in range(0, total, rows):
        yield min(rows, total - start)


def _differences(first: Values, second: Values) -> NDArray[np.float64]:
    one, other = _checked(first, "first"), _checked(second, "second")
    if one.size != other.size:
        raise InputError(f"a paired comparison needs the same questions on both sides, not {one.size} and {other.size} values")
    return other - one


def _checked(values: Values, name: str) -> NDArray[np.float64]:
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} must be numbers: {error}") from error
    if array.ndim != 1 or array.size == 0:
        raise InputError(f"{name} must be one or more numbers in a row, not an array of shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array))
    if bad.size:
        raise InputError(
            f"{name}[{bad[0]}] is {values[bad[0]]!r}: leave out the questions to which a metric does not apply, and those that failed"
        )
    return array


def _check_draws(seed: int, draws: int, name: str) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(f"seed must be a whole number from 0, not {seed!r}")
    if isinstance(draws, bool) or not isinstance(draws, int) or not 100 <= draws <= 10_000_000:
        raise InputError(f"{name} must be a whole number from 100 to 10,000,000, not {draws!r}")
