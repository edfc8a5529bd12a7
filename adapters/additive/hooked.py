"""Modules of ours beside those of a base model, which hooks call: the base keeps its own modules, names and state dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.described import described

if TYPE_CHECKING:
    from adapters.contract import Method, State

Undo = Callable[[], None]


class HookedModules:
    """``options`` worn by ``model``: ``modules`` stand beside the layers they are named after, ``undo`` takes their hooks off.

    ``own`` are parameters of the base model, by their names there, that train too: they are kept in the state, and put back by `remove`.
    """

    def __init__(
        self,
        model: nn.Module,
        options: Method,
        modules: Mapping[str, nn.Module],
        undo: Sequence[Undo],
        own: Mapping[str, nn.Parameter] | None = None,
    ) -> None:
        self.modules = dict(modules)
        self._model = model
        self._options = options
        self._undo = list(undo)
        self._own = dict(own or {})
        self._before = {name: parameter.detach().clone() for name, parameter in self._own.items()}

    @property
    def model(self) -> nn.Module:
        """The base model itself."""
        return self._model

    def trained(self) -> dict[str, nn.Parameter]:
        """Parameters of the modules, and those of the base model that train, under "base."."""
        return dict(self._named())

    def state(self) -> State:
        """All that trains."""
        return {name: parameter.detach() for name, parameter in self._named()}

    def load_state(self, state: State) -> None:
        """Copy the values in."""
        with torch.no_grad():
            for name, parameter in self._named():
                parameter.copy_(state[name])

    def config(self) -> Mapping[str, Any]:
        """The method's name and options: PEFT has no such method."""
        return described(self._options, self._model)

    def remove(self) -> None:
        """Take the hooks off, and give the base model's own parameters their values of before."""
        while self._undo:
            self._undo.pop()()
        with torch.no_grad():
            for name, parameter in self._own.items():
                parameter.copy_(self._before[name])
                parameter.requires_grad_(False)

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for layer, module in self.modules.items():
            for name, parameter in module.named_parameters():
                yield f"{layer}.{name}", parameter
        for name, parameter in self._own.items():
            yield f"base.{name}", parameter


def beside(layer: nn.Module, module: nn.Module) -> nn.Module:
    """``module`` on the device of ``layer``, in its precision but not below float32, which small steps of training need."""
    weight = next(layer.parameters())
    keep = weight.dtype in (torch.float32, torch.float64)
    return module.to(device=weight.device, dtype=weight.dtype if keep else torch.float32)


def first_input(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """What a layer of one input was called with, by position or by name."""
    tensor: Tensor = next(iter((*args, *kwargs.values())))
    return tensor
