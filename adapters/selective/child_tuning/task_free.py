"""Child-Tuning-F: another random child network at every step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from adapters.contract import State
    from adapters.selective.in_place import InPlace


class TaskFree:
    """Before each step g <- g * Bernoulli(p) / p, drawn anew for each entry: the mean over the draws is g (Xu et al. 2021, Child-Tuning-F).

    The optimiser sees the masked gradient and nothing is put back: as in the paper, momentum may move an entry whose gradient was dropped.
    The draws depend on the seed and on the device.
    """

    def __init__(self, weights: InPlace, p: float, seed: int) -> None:
        self._weights = weights
        self._p = p
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}

    @property
    def model(self) -> nn.Module:
        """The base model itself."""
        return self._weights.model

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters but the head's."""
        return self._weights.trained()

    def begin(self, total: int) -> None:
        """The draws start anew, so that the same training gives the same model."""
        self._generators.clear()

    def before_step(self) -> None:
        """Mask and scale the gradients. With p = 1 they stay what they are, bit for bit."""
        for parameter in self._weights.trained().values():
            gradient = parameter.grad
            if gradient is None:
                continue
            dropped = torch.empty(gradient.shape, dtype=torch.bool, device=gradient.device)
            dropped.bernoulli_(1 - self._p, generator=self._generator(gradient.device))
            gradient.masked_fill_(dropped, 0).div_(self._p)

    def after_step(self, step: int) -> None:
        """Nothing."""

    def training_state(self) -> State:
        """Where the draws are, by device."""
        return {str(device): generator.get_state() for device, generator in self._generators.items()}

    def load_training_state(self, state: State) -> None:
        """Go on with the draws from there."""
        for device, where in state.items():
            self._generator(torch.device(device)).set_state(where)

    def state(self) -> State:
        """All that trains."""
        return self._weights.state()

    def load_state(self, state: State) -> None:
        """Take all that trains from ``state``."""
        self._weights.load_state(state)

    def config(self) -> Mapping[str, Any]:
        """The method and its options."""
        return self._weights.config()

    def merged(self) -> State:
        """Copies of all that trains."""
        return self._weights.merged()

    def remove(self) -> None:
        """Put the originals back, and freeze."""
        self._weights.remove()

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]
