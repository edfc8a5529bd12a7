"""Biases for layers that have none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.anatomy import width

if TYPE_CHECKING:
    from adapters.contract import State
    from adapters.selective.in_place import InPlace

PARAMETER = "added_bias"


class AddedBiases:
    """A bias [out] of zeros behind each of the linear layers ``bare``, beside the model's ``own`` biases.

    A forward hook adds it, so that at the start the output is the base model's to the last bit. The model's architecture has no place for
    such a bias: there is nothing to merge it into.
    """

    def __init__(self, own: InPlace, bare: Mapping[str, nn.Module]) -> None:
        self._own = own
        self._bare = dict(bare)
        self._hooks = [_give_bias(layer) for layer in self._bare.values()]

    @property
    def model(self) -> nn.Module:
        """The base model itself, with the hooks."""
        return self._own.model

    def trained(self) -> dict[str, nn.Parameter]:
        """The model's own biases and the added ones, those as "LAYER.bias"."""
        return {**self._own.trained(), **self._added()}

    def state(self) -> State:
        """Their values now."""
        return {**self._own.state(), **{name: bias.detach() for name, bias in self._added().items()}}

    def load_state(self, state: State) -> None:
        """Take their values from ``state``."""
        self._own.load_state(state)
        with torch.no_grad():
            for name, bias in self._added().items():
                bias.copy_(state[name])

    def config(self) -> Mapping[str, Any]:
        """The method and its options."""
        return self._own.config()

    def remove(self) -> None:
        """Put the model's own biases back, and take out the hooks and the added ones."""
        self._own.remove()
        for hook in self._hooks:
            hook.remove()
        for layer in self._bare.values():
            if hasattr(layer, PARAMETER):
                delattr(layer, PARAMETER)

    def _added(self) -> dict[str, nn.Parameter]:
        return {f"{name}.bias": layer.get_parameter(PARAMETER) for name, layer in self._bare.items()}


def _give_bias(layer: nn.Module) -> Any:
    weight: Tensor = layer.get_parameter("weight")
    # registered in the layer, so that it goes to another device or dtype with it
    layer.register_parameter(PARAMETER, nn.Parameter(weight.new_zeros(width(layer)[1])))
    return layer.register_forward_hook(_add_bias)


def _add_bias(layer: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output + layer.get_parameter(PARAMETER)
