"""Several rankings of one question become one.

Reciprocal rank fusion: Cormack, Clarke and Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods", SIGIR 2009.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rag.core.errors import InputError
from rag.core.registry import component
from rag.core.trace import note
from rag.core.types import Hit


@dataclass(slots=True)
class _Candidate:
    """A passage on its way through the fusion; ``hit`` is how it was first seen."""

    hit: Hit
    best_rank: int
    shares: list[float] = field(default_factory=list)


@component
class Fuse:
    """Fuse any number of rankings into the ``k`` best passages; a passage found twice appears once.

    ``method="rrf"``: the score of a passage is the sum of weight / (``constant`` + rank) over the rankings that hold it, where rank is its
    place in the list, from 1. ``method="weighted"``: the sum of weight × score, each ranking's scores scaled to [0, 1] by their minimum and
    maximum (1 when they are all equal). ``weights``: one per ranking, in the order in which they are connected; all 1 if None.

    Ties go to the better single rank, then to the passage seen first.
    """

    def __init__(
        self, k: int = 10, method: Literal["rrf", "weighted"] = "rrf", weights: Sequence[float] | None = None, constant: float = 60
    ) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"Fuse: k must be an integer of at least 1, not {k!r}")
        if method not in ("rrf", "weighted"):
            raise InputError(f"Fuse: method must be 'rrf' or 'weighted', not {method!r}")
        if weights is not None and not (all(math.isfinite(w) and w >= 0 for w in weights) and any(weights)):
            raise InputError(f"Fuse: weights must be finite, none below 0 and at least one above 0, not {list(weights)!r}")
        if not (math.isfinite(constant) and constant >= 0):
            raise InputError(f"Fuse: constant must be finite and at least 0, not {constant!r}")
        self.k = k
        self.method = method
        self.weights = weights
        self.constant = constant

    def run(self, *rankings: list[Hit], k: int | None = None) -> list[Hit]:
        """Return at most ``k`` hits (the constructor's if None), best first; [] only if every ranking is empty.

        Raises `InputError` if there is no ranking, if the number of weights differs from the number of rankings, if one passage id stands
        for two texts of different corpora (in one corpus it was changed between two searches, and the text that came first counts), or if
        a score is not finite (``method="weighted"``).
        """
        k = self.k if k is None else k
        if k < 1:
            raise InputError(f"Fuse: k must be at least 1, not {k}")
        weights = self._weights_for(len(rankings))
        candidates: dict[str, _Candidate] = {}
        for number, (ranking, weight) in enumerate(zip(rankings, weights, strict=True), start=1):
            if not ranking:
                note(f"ranking {number} of {len(rankings)} is empty")
            unique = _first_of_each(ranking)
            scores = _scaled([hit.score for hit in unique], number) if self.method == "weighted" else None
            for rank, hit in enumerate(unique, start=1):
                share = scores[rank - 1] if scores is not None else 1 / (self.constant + rank)
                candidate = candidates.setdefault(hit.passage.id, _Candidate(hit, rank))
                _same_passage(candidate.hit, hit)
                candidate.best_rank = min(candidate.best_rank, rank)
                candidate.shares.append(weight * share)
        # fsum is exact, so equal weights give the same scores in whatever order the rankings come; the sort is stable: seen first wins.
        ordered = sorted(candidates.values(), key=lambda c: (-math.fsum(c.shares), c.best_rank))
        name = _name(rankings)
        return [replace(c.hit, score=math.fsum(c.shares), rank=rank, retriever=name) for rank, c in enumerate(ordered[:k], start=1)]

    def _weights_for(self, number: int) -> Sequence[float]:
        if number == 0:
            raise InputError("Fuse: there is no ranking to fuse; connect at least one retriever")
        if self.weights is None:
            return [1.0] * number
        if len(self.weights) != number:
            raise InputError(f"Fuse: {len(self.weights)} weights for {number} rankings; give one weight per connected ranking, in order")
        return self.weights


def _first_of_each(ranking: list[Hit]) -> list[Hit]:
    unique: dict[str, Hit] = {}
    for hit in ranking:
        _same_passage(unique.setdefault(hit.passage.id, hit), hit)
    return list(unique.values())


def _same_passage(first: Hit, second: Hit) -> None:
    if first.passage.text == second.passage.text:
        return
    if first.corpus and first.corpus == second.corpus:
        note(f"passage '{first.passage.id}' changed between two searches; the text of the first one counts")
    else:
        raise InputError(
            f"Fuse: {first.retriever or 'one ranking'} and {second.retriever or 'another'} hold different texts under the passage id"
            f" '{first.passage.id}'; fuse rankings of one corpus, or give its passages ids of their own"
        )


def _scaled(scores: list[float], number: int) -> list[float]:
    if not all(math.isfinite(score) for score in scores):
        raise InputError(f"Fuse: ranking {number} has a score that is not finite; method 'rrf' does not look at scores")
    low, high = min(scores, default=0.0), max(scores, default=0.0)
    if low == high:
        return [1.0] * len(scores)
    span = high - low
    return [(score - low) / span for score in scores]


def _name(rankings: Sequence[list[Hit]]) -> str:
    names = dict.fromkeys(ranking[0].retriever or "?" for ranking in rankings if ranking)
    return f"fuse({'+'.join(names)})"
