"""Where a run is, and the weights that it may return to."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adapters.contract import TrainingState

if TYPE_CHECKING:
    from adapters.adapted import Adapted
    from adapters.contract import State


@dataclass
class Progress:
    """Steps taken, losses and the best evaluation."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    first_loss: float = math.nan
    last_loss: float = math.nan
    held_out: list[tuple[int, float]] = field(default_factory=list)
    best_loss: float = math.inf
    best_step: int = 0
    worse: int = 0
    """Evaluations since the best."""
    best: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    """The snapshot of the best evaluation."""

    @classmethod
    def read(cls, step: int, facts: Mapping[str, Any], best: Mapping[str, Mapping[str, Tensor]]) -> Progress:
        """What `facts` gave."""
        held_out = [(int(at), float(loss)) for at, loss in facts["held_out"]]
        best_loss = math.inf if facts["best_loss"] is None else float(facts["best_loss"])
        return cls(step=step, best=best, **{**facts, "held_out": held_out, "best_loss": best_loss})

    def facts(self) -> dict[str, Any]:
        """As JSON; the step and the snapshot are kept apart."""
        names = ("tokens", "seconds", "first_loss", "last_loss", "held_out", "best_step", "worse")
        best_loss = self.best_loss if math.isfinite(self.best_loss) else None
        return {**{name: getattr(self, name) for name in names}, "best_loss": best_loss}

    def add(self, loss: float, tokens: int, seconds: float) -> None:
        """A step was taken."""
        self.first_loss = loss if self.step == 0 else self.first_loss
        self.last_loss = loss
        self.step += 1
        self.tokens += tokens
        self.seconds += seconds

    def judge(self, loss: float) -> bool:
        """Whether the held-out ``loss`` is the best so far."""
        self.held_out.append((self.step, loss))
        better = loss < self.best_loss
        if better:
            self.best_loss, self.best_step = loss, self.step
        self.worse = 0 if better else self.worse + 1
        return better


def snapshot(adapted: Adapted) -> dict[str, State]:
    """Copies of all that training changes, on the CPU: parameters, and the method's own state where it gives it."""
    trained = {name: _copy(parameter) for name, parameter in adapted.trained().items()}
    if not isinstance(adapted.worn, TrainingState):
        return {"trained": trained}
    return {"trained": trained, "method": {name: _copy(tensor) for name, tensor in adapted.worn.training_state().items()}}


def take(adapted: Adapted, kept: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Give ``adapted`` back what `snapshot` kept."""
    with torch.no_grad():
        for name, parameter in adapted.trained().items():
            parameter.copy_(kept["trained"][name])
    if isinstance(adapted.worn, TrainingState):
        adapted.worn.load_training_state(dict(kept.get("method", {})))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)
