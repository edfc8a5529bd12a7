"""Layers of a transformers cache that hold what was not computed here."""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import DynamicLayer

PlainLayer: Any = DynamicLayer
"""A layer that grows with every update, untyped as transformers has it."""


def filled(keys: torch.Tensor, values: torch.Tensor) -> Any:
    """A layer that holds ``keys`` and ``values`` [1, heads, tokens, head_dim] and grows behind them; its own update would copy them."""
    layer = PlainLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


class PatchedLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """``keys`` and ``values`` [1, heads, tokens, head_dim] of a text; the next update writes the places ``rows``, later ones append."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: torch.Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values
        self._waiting: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = (keys, values, rows)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """All keys and values, the new ones in their places."""
        if self._waiting is None:
            return super().update(key_states, value_states)
        keys, values, rows = self._waiting
        self._waiting = None
        self.keys, self.values = keys.index_copy(2, rows, key_states), values.index_copy(2, rows, value_states)
        return self.keys, self.values


class Reached(Exception):
    """A `LastLayer` has its values."""


class LastLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Ends the forward pass, by `Reached`, when it is reached: what lies beyond is not wanted."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the values; never returns."""
        self.reached = value_states
        raise Reached
