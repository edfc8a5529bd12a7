"""The three sets of one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from adapters.additive.aprompt.config import APrompt

Projection = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Vectors [n, d] of a layer's input to the keys and values [n, kv] that the layer would make of them."""


class Prompts(nn.Module):
    """``input`` [n, d], ``query_key`` [n, kv], ``key`` and ``value`` [n, kv]; a set of length 0 is not there.

    d is the width of the model, kv that of all key heads together.
    """

    def __init__(self, width: int, kv_width: int, options: APrompt) -> None:
        super().__init__()
        wanted = (
            ("input", options.input_length, width),
            ("query_key", options.query_key_length, kv_width),
            ("key", options.key_value_length, kv_width),
            ("value", options.key_value_length, kv_width),
        )
        for name, length, columns in wanted:
            if length:
                self.register_parameter(name, nn.Parameter(options.std * torch.randn(length, columns)))

    def columns(self, project: Projection) -> tuple[Tensor, Tensor] | None:
        """Keys and values [n, kv] that stand in front of the tokens', or None if all sets are empty."""
        sets = dict(self.named_parameters())
        keys, values = [], []
        if "input" in sets:
            key, value = project(sets["input"])
            keys.append(key)
            values.append(value)
        if "query_key" in sets:
            keys.append(sets["query_key"])
            values.append(torch.zeros_like(sets["query_key"]))
        if "key" in sets:
            keys.append(sets["key"])
            values.append(sets["value"])
        return (torch.cat(keys), torch.cat(values)) if keys else None
