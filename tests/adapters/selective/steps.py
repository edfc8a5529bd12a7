"""What the tests of selective methods share: losses of single examples, and a few steps with an optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from adapters.adapted import Adapted
from adapters.contract import NeedsExamples, Steps
from tests.adapters.tiny import batch_for

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW whose weight decay shows after one step."""
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.5)


def momentum(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """SGD with momentum and weight decay."""
    return torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=0.5)


def losses(model: Any, on: str) -> Callable[[], Iterator[Tensor]]:
    """The loss of each row of the batch, one after the other."""
    batch = batch_for(on)
    return lambda: (model(**{key: value[i : i + 1] for key, value in batch.items()}).loss for i in range(3))


def prepare(adapted: Adapted, on: str) -> None:
    """Show the method its examples."""
    assert isinstance(adapted.worn, NeedsExamples)
    adapted.worn.prepare(losses(adapted.model, on))


def take_steps(adapted: Adapted, on: str, steps: int = 3, make: Make = adamw) -> None:
    """Steps on one batch, with the method's say in each."""
    worn = adapted.worn
    optimizer = make(list(adapted.trained().values()))
    if isinstance(worn, Steps):
        worn.begin(steps)
    for step in range(steps):
        adapted.model(**batch_for(on)).loss.backward()
        if isinstance(worn, Steps):
            worn.before_step()
        optimizer.step()
        if isinstance(worn, Steps):
            worn.after_step(step)
        optimizer.zero_grad()


def values(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def moved(before: dict[str, Tensor], model: torch.nn.Module) -> dict[str, Tensor]:
    """By name, which entries of ``model`` differ from ``before``; parameters that are the same are left out."""
    found = {name: parameter.detach() != before[name] for name, parameter in model.named_parameters()}
    return {name: where for name, where in found.items() if where.any()}
