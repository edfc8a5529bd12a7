"""Whole parameters of the base model, trained where they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adapters.selective.originals import Originals

if TYPE_CHECKING:
    from adapters.contract import State


class InPlace:
    """``chosen`` parameters of ``model`` train as a whole; ``config`` is what ``adapter_config.json`` shall hold."""

    def __init__(self, model: nn.Module, chosen: Mapping[str, nn.Parameter], config: Mapping[str, Any]) -> None:
        self._model = model
        self._chosen = dict(chosen)
        self._config = dict(config)
        self._originals = Originals(chosen)

    @property
    def model(self) -> nn.Module:
        """The base model itself."""
        return self._model

    def trained(self) -> dict[str, nn.Parameter]:
        """The chosen parameters, under their names in the base model."""
        return dict(self._chosen)

    def state(self) -> State:
        """Their values now."""
        return {name: parameter.detach() for name, parameter in self._chosen.items()}

    def load_state(self, state: State) -> None:
        """Take their values from ``state``."""
        with torch.no_grad():
            for name, parameter in self._chosen.items():
                parameter.copy_(state[name])

    def config(self) -> Mapping[str, Any]:
        """The method and its options."""
        return dict(self._config)

    def merged(self) -> State:
        """Copies of their values now: they are in the base model's weights already."""
        return {name: parameter.detach().clone() for name, parameter in self._chosen.items()}

    def remove(self) -> None:
        """Put the originals back, and freeze."""
        self._originals.put_back()
        for parameter in self._chosen.values():
            parameter.requires_grad_(False)
            parameter.grad = None
