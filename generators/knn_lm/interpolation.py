"""The mixture of kNN-LM: p = λ·p_kNN + (1 − λ)·p_LM, with p_kNN(w) ∝ Σ exp(−d/T) over the neighbours that were followed by w.

Khandelwal et al. 2020, equations 2 and 3; d is the squared Euclidean distance. The paper has T = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from generators.knn_lm.datastore import Neighbours
from rag.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Interpolation:
    """``weight`` is λ, from 0 (the model alone) to 1; ``temperature`` divides squared distances; the nearest ``k`` count.

    Raises `InputError` for values out of range.
    """

    weight: float = 0.25
    temperature: float = 1.0
    k: int = 128

    def __post_init__(self) -> None:
        if not _number(self.weight) or not 0 <= self.weight <= 1:
            raise InputError(f"weight (λ) is a number from 0 to 1, not {self.weight!r}")
        if not _number(self.temperature) or self.temperature <= 0:
            raise InputError(f"temperature is a positive number, not {self.temperature!r}")
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise InputError(f"k is a whole number of at least 1, not {self.k!r}")

    def shares(self, neighbours: Neighbours) -> np.ndarray:
        """What each neighbour adds to p_kNN, [queries, k], float64; a row sums to 1, or to 0 where nothing was found."""
        found = neighbours.first(self.k)
        near = -found.distances.astype(np.float64) / self.temperature  # −inf where there are fewer than k
        best = near.max(axis=1, keepdims=True)
        shares = np.exp(near - np.where(np.isfinite(best), best, 0.0))
        return np.asarray(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1e-300))

    def logprobs(self, base: np.ndarray, neighbours: Neighbours, targets: np.ndarray) -> np.ndarray:
        """log p of ``targets`` [queries], whose log-probabilities by the model are ``base`` [queries].

        −inf where λ is 1 and no neighbour is followed by the target.
        """
        shares = self.shares(neighbours)
        near = np.where(neighbours.first(self.k).tokens == targets[:, None], shares, 0.0).sum(axis=1)
        weight = np.where(shares.any(axis=1), self.weight, 0.0)  # nothing was found: the model alone
        with np.errstate(divide="ignore"):
            return np.asarray(np.logaddexp(np.log(weight) + np.log(near), np.log1p(-weight) + base))

    def distribution(self, base: np.ndarray, neighbours: Neighbours) -> np.ndarray:
        """log p of every token, [queries, vocabulary], from the model's log-probabilities ``base`` of the same shape."""
        shares = self.shares(neighbours)
        tokens = neighbours.first(self.k).tokens
        near = np.zeros(base.shape)
        rows, columns = np.nonzero(tokens >= 0)
        np.add.at(near, (rows, tokens[rows, columns]), shares[rows, columns])
        weight = np.where(shares.any(axis=1), self.weight, 0.0)[:, None]
        with np.errstate(divide="ignore"):
            return np.asarray(np.logaddexp(np.log(weight) + np.log(near), np.log1p(-weight) + base))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
