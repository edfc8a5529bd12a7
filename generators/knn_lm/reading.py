"""How well a text is predicted: each token once, in sliding windows, by the model alone and with its neighbours.

What costs time (the model, the search) is done once for a text; every interpolation is then a sum over what was read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from generators.knn_lm.datastore import Datastore, Neighbours
from generators.knn_lm.decoder import Decoder
from generators.knn_lm.interpolation import Interpolation
from generators.knn_lm.windows import Windows
from rag.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Reading:
    """Of the predicted tokens of one text: ``targets`` and ``base`` (the model's natural log-probabilities) [tokens], and neighbours."""

    targets: np.ndarray
    base: np.ndarray
    neighbours: Neighbours

    def logprobs(self, interpolation: Interpolation) -> np.ndarray:
        """Natural log-probabilities of the targets by the mixture, [tokens]."""
        if interpolation.k > self.neighbours.tokens.shape[1]:
            raise InputError(f"k is {interpolation.k} and only {self.neighbours.tokens.shape[1]} neighbours were looked up")
        return interpolation.logprobs(self.base, self.neighbours, self.targets)


class Reader:
    """Reads texts with ``decoder`` and looks up ``k`` neighbours of each context in ``datastore``.

    Raises `CorpusMismatch` for a datastore of another model, `InputError` for windows that the model cannot read.
    """

    def __init__(self, decoder: Decoder, datastore: Datastore, k: int = 128, windows: Windows | None = None) -> None:
        datastore.check(decoder.source)
        self._decoder = decoder
        self._datastore = datastore
        self._k = min(k, len(datastore))
        self._windows = windows or Windows()
        if self._windows.size > decoder.window + 1:
            raise InputError(f"windows of {self._windows.size} tokens: {decoder.name} reads at most {decoder.window} at once")

    def read(self, ids: Sequence[int]) -> Reading:
        """Predict the tokens of a text but for the first. Raises `InputError` for fewer than two."""
        if len(ids) < 2:
            raise InputError(f"a text of {len(ids)} tokens has nothing to predict; it needs two or more")
        import torch

        targets, base, keys = [], [], []
        for window in self._windows.of(len(ids)):
            vectors, logits = self._decoder.keys_and_logits(ids[window.begin : window.end - 1], window.predicted)
            wanted = torch.tensor(ids[window.first : window.end], device=logits.device)
            precise = logits if logits.dtype == torch.float64 else logits.float()
            base.append((precise.gather(-1, wanted[:, None])[:, 0] - precise.logsumexp(-1)).cpu().numpy())
            keys.append(vectors.float().cpu().numpy())
            targets.append(wanted.cpu().numpy())
        found = self._datastore.search(np.concatenate(keys), self._k)
        return Reading(np.concatenate(targets), np.concatenate(base).astype(np.float64), found)


def perplexity(logprobs: Iterable[np.ndarray]) -> float:
    """exp of the mean negative log-probability over all tokens of all texts; infinite if one token is impossible.

    Raises `InputError` for no tokens.
    """
    every = np.concatenate([*logprobs, np.empty(0)])
    if not every.size:
        raise InputError("the perplexity of no tokens is not defined")
    mean = -float(every.mean())
    return math.exp(mean) if mean < 700 else math.inf
