"""Single entries of parameters as a file holds them: for each parameter "NAME.indices" and "NAME.values"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from rag.core.errors import AdapterMismatch

if TYPE_CHECKING:
    from adapters.contract import State

INDICES, VALUES = ".indices", ".values"


def pack(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor]) -> State:
    """The entries that ``masks`` mark: flat indices (int64 [k], rising) and values [k] in the parameter's dtype."""
    state: State = {}
    for name, mask in masks.items():
        state[name + INDICES] = mask.reshape(-1).nonzero().reshape(-1)
        state[name + VALUES] = parameters[name].detach()[mask]
    return state


def masks_of(parameters: Mapping[str, nn.Parameter], state: State) -> dict[str, Tensor]:
    """The masks that gave ``state``, boolean in the shapes and on the devices of the parameters."""
    masks: dict[str, Tensor] = {}
    for name in _owners(state):
        parameter = parameters[name]
        mask = torch.zeros(parameter.numel(), dtype=torch.bool, device=parameter.device)
        mask[state[name + INDICES].to(parameter.device)] = True
        masks[name] = mask.view(parameter.shape)
    return masks


def unpack(parameters: Mapping[str, nn.Parameter], masks: Mapping[str, Tensor], state: State) -> None:
    """Write the values of ``state`` into the entries that ``masks`` mark."""
    with torch.no_grad():
        for name, mask in masks.items():
            parameters[name][mask] = state[name + VALUES].to(parameters[name])


def check(parameters: Mapping[str, nn.Parameter], state: State, count: int) -> None:
    """Raise `AdapterMismatch` unless ``state`` holds ``count`` entries of ``parameters``, each once and in order. Changes nothing."""
    for key in state:
        if not key.endswith((INDICES, VALUES)) or _owner(key) not in parameters:
            raise AdapterMismatch(f"'{key}' is not {INDICES} or {VALUES} of a parameter that this method trains in this model")
    for name in sorted({_owner(key) for key in state}):
        missing = [name + ending for ending in (INDICES, VALUES) if name + ending not in state]
        if missing:
            raise AdapterMismatch(f"'{missing[0]}' is missing beside the other tensor of '{name}'")
        _check_pair(name, state[name + INDICES], state[name + VALUES], parameters[name].numel())
    found = sum(state[name + INDICES].numel() for name in _owners(state))
    if found != count:
        raise AdapterMismatch(f"it holds {found} entries; with these options this model has {count}")


def _check_pair(name: str, indices: Tensor, values: Tensor, size: int) -> None:
    if indices.dtype != torch.int64 or indices.dim() != 1:
        raise AdapterMismatch(f"'{name}{INDICES}' is {indices.dtype} of shape {tuple(indices.shape)}, not one row of int64")
    if values.shape != indices.shape or not values.is_floating_point():
        raise AdapterMismatch(
            f"'{name}{VALUES}' is {values.dtype} of shape {tuple(values.shape)}, not {indices.numel()} floating-point values"
        )
    if indices.numel() and (indices[0] < 0 or indices[-1] >= size or (indices.diff() <= 0).any()):
        raise AdapterMismatch(f"'{name}{INDICES}' does not hold rising indices from 0 to below {size}")


def _owners(state: State) -> list[str]:
    return [_owner(key) for key in state if key.endswith(INDICES)]


def _owner(key: str) -> str:
    return key.rpartition(".")[0]
