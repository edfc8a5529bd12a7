"""Where a decoder makes its keys, heard before the rotation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from rag.core.errors import MissingCapability

_FUSED = "query_key_value"  # GPT-NeoX: queries, keys and values of a head side by side
_SOURCES = ("k_norm", "k_proj", _FUSED)  # the first that a layer has: a norm comes behind the projection


class RawKeys:
    """The modules of ``model`` whose outputs are the raw keys, one a layer; ``layers`` is how many there must be.

    Raises `MissingCapability` for an architecture that makes its keys elsewhere.
    """

    def __init__(self, model: nn.Module, layers: int) -> None:
        self._modules: list[nn.Module] = []
        self._fused: list[bool] = []
        numbered: list[Any] = [module for module in model.modules() if isinstance(getattr(module, "layer_idx", None), int)]
        for attention in sorted(numbered, key=lambda module: int(module.layer_idx)):
            source = next((name for name in _SOURCES if isinstance(getattr(attention, name, None), nn.Module)), None)
            if source is not None:
                self._modules.append(getattr(attention, source))
                self._fused.append(source == _FUSED)
        if len(self._modules) != layers:
            raise MissingCapability(
                f"{type(model).__name__}: {len(self._modules)} of its {layers} layers make keys where they were looked for"
                f" ({', '.join(_SOURCES)}); contexts can be stored for Llama-like models, GPT-NeoX and GPT-J"
            )

    @contextmanager
    def heard(self) -> Iterator[list[torch.Tensor]]:
        """While open, a forward pass leaves each layer's output in the list, for `shaped`."""
        outputs: list[torch.Tensor] = []

        def hear(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
            outputs.append(output)

        hooks = [module.register_forward_hook(hear) for module in self._modules]
        try:
            yield outputs
        finally:
            for hook in hooks:
                hook.remove()

    def shaped(self, outputs: list[torch.Tensor], heads: int, head_dim: int) -> list[torch.Tensor]:
        """The raw keys of each layer, [rows, heads, tokens, head_dim].

        Raises `MissingCapability` where keys are made that are not the text's, or of another width than the cache's.
        """
        if len(outputs) != len(self._modules) or any(output.dim() < 3 for output in outputs):
            raise MissingCapability(
                "what the model wears makes keys of vectors in front of a text, and passages that are encoded apart have none there; use an"
                " adapter that changes layers, such as LoRA"
            )
        keys = []
        for output, fused in zip(outputs, self._fused, strict=True):
            wide = output.reshape(*output.shape[:2], heads, -1)
            keys.append((wide.chunk(3, dim=-1)[1] if fused else wide).transpose(1, 2))
            if keys[-1].shape[-1] != head_dim:
                raise MissingCapability(f"keys of {keys[-1].shape[-1]} dimensions are made where the cache holds {head_dim}")
        return keys
