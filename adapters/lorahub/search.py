"""Minimisation without gradients: few evaluations, some twenty dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from rag.core.errors import AdapterError, InputError, MissingDependency

Function = Callable[[Sequence[float]], float]
Progress = Callable[[int, float, float], None]
"""Called after each evaluation with its number from 0, its value, and the best value so far."""


@dataclass(frozen=True)
class Found:
    """The best of all evaluations; ``values`` are theirs, the first at w = 0."""

    weights: tuple[float, ...]
    values: tuple[float, ...]

    @property
    def best(self) -> float:
        """Never above ``values[0]``."""
        return min(self.values)


class Search(Protocol):
    """A way to minimise."""

    def minimise(self, function: Function, size: int, progress: Progress | None = None) -> Found:
        """The best of at most so many evaluations as the search was given, the first at 0."""
        ...


class _Spent(Exception):
    """The evaluations are used up; it ends an optimiser that counts otherwise."""


@dataclass
class _Recorder:
    """Counts, keeps within the bounds, remembers the best, and refuses what is no number."""

    function: Function
    budget: int
    bound: float
    progress: Progress | None
    values: list[float] = field(default_factory=list)
    best: tuple[float, ...] = ()

    def __call__(self, asked: Any) -> float:
        if len(self.values) >= self.budget:
            raise _Spent
        weights = tuple(min(self.bound, max(-self.bound, float(weight))) for weight in asked)
        value = self.function(weights)
        number = len(self.values)
        if math.isnan(value):
            shown = ", ".join(f"{weight:.3g}" for weight in weights)
            raise AdapterError(f"the loss is not a number at evaluation {number} (weights {shown}); look at the LoRAs and the examples")
        if not self.values or value < min(self.values):
            self.best = weights
        self.values.append(value)
        if self.progress is not None:
            self.progress(number, value, min(self.values))
        return value

    def found(self) -> Found:
        return Found(self.best, tuple(self.values))


@dataclass(frozen=True)
class Cobyla:
    """Powell's COBYLA (1994), by scipy: linear models on a simplex in a trust region. Deterministic.

    What nevergrad's NGOpt, which the released code names, takes at 20 dimensions and 40 evaluations. The first evaluations go from 0 by
    ``first_step`` along each coordinate: w = 0 is a local minimum of LoRAHub's objective, and small steps never leave it.
    """

    evaluations: int = 40
    bound: float = 1.5
    first_step: float = 0.5

    def minimise(self, function: Function, size: int, progress: Progress | None = None) -> Found:
        """As `Search` says."""
        try:
            from scipy.optimize import minimize  # type: ignore[import-untyped, unused-ignore]
        except ImportError as error:
            raise MissingDependency(f"LoRAHub searches with scipy ({error}): pip install 'graft-rag[adapters]'") from error
        recorder = _Recorder(function, self.evaluations, self.bound, progress)
        options = {"rhobeg": self.first_step, "maxiter": max(self.evaluations, size + 2)}  # it refuses less
        with suppress(_Spent):
            minimize(recorder, [0.0] * size, method="COBYLA", bounds=[(-self.bound, self.bound)] * size, options=options)
        return recorder.found()


@dataclass(frozen=True)
class Nevergrad:
    """The released code's own: nevergrad's NGOpt with ``evaluations`` as its budget."""

    evaluations: int = 40
    bound: float = 1.5
    seed: int = 0

    def minimise(self, function: Function, size: int, progress: Progress | None = None) -> Found:
        """As `Search` says."""
        import importlib

        try:
            nevergrad = importlib.import_module("nevergrad")
        except ImportError as error:
            raise MissingDependency(
                f"the search 'nevergrad' needs nevergrad ({error}): pip install 'graft-rag[lorahub]', or take 'cobyla'"
            ) from error
        space = nevergrad.p.Array(init=[0.0] * size, lower=[-self.bound] * size, upper=[self.bound] * size)
        space.random_state.seed(self.seed)
        optimizer = nevergrad.optimizers.NGOpt(parametrization=space, budget=self.evaluations)
        recorder = _Recorder(function, self.evaluations, self.bound, progress)
        start = recorder([0.0] * size)  # not every algorithm that it may choose asks for this first
        with suppress(_Spent):
            for _ in range(self.evaluations):
                asked = optimizer.ask()
                optimizer.tell(asked, recorder(asked.value) if any(asked.value) else start)
        return recorder.found()


def make_search(name: str, evaluations: int, bound: float, first_step: float, seed: int) -> Search:
    """The search called ``name``. Raises `InputError`."""
    if name == "cobyla":
        return Cobyla(evaluations, bound, first_step)
    if name == "nevergrad":
        return Nevergrad(evaluations, bound, seed)
    raise InputError(f"LoRAHub: search is 'cobyla' or 'nevergrad', not {name!r}")
