"""More keys and values for a self-attention of transformers, behind its projections, rotary positions and cache.

The attention's module is left as it is but for its ``config``, which names our attention function in place of the model's. That one puts
the columns in front and calls the model's own. So the cache, the positions and the masks of real tokens are those of the base model.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adapters.additive.hooked import first_input
from rag.core.errors import AdapterError

NAME = "graft_prompted"
"""Under which transformers knows `attend`."""
_KEYWORD = "prompt_columns"
_SUPPORTED = ("eager", "sdpa")

Attend = Callable[..., tuple[Tensor, Tensor | None]]


@dataclass
class Columns:
    """Keys and values [n, kv] for one call, and the attention function to call with them; ``used`` tells that it came to that."""

    keys: Tensor
    values: Tensor
    implementation: str
    used: bool = False


class PromptedConfig:
    """A model's config for one attention module: the same, live, but for the name of the attention function."""

    def __init__(self, config: Any) -> None:
        self.original = config

    @property
    def _attn_implementation(self) -> str:
        return NAME

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "original"), name)


class PromptedAttention:
    """``module`` with what ``columns(dtype of its input)`` gives, at each call, in front of its keys and values."""

    def __init__(self, module: Any, columns: Callable[[torch.dtype], tuple[Tensor, Tensor] | None]) -> None:
        _check(module)
        from transformers import AttentionInterface

        AttentionInterface.register(NAME, attend)
        self._module = module
        self._columns = columns
        self._config = module.config
        module.config = PromptedConfig(self._config)
        self._hooks = [
            module.register_forward_pre_hook(self._before, with_kwargs=True),
            module.register_forward_hook(self._after, with_kwargs=True),
        ]

    def remove(self) -> None:
        """Give the module back its config, and take the hooks off."""
        self._module.config = self._config
        for hook in self._hooks:
            hook.remove()

    def _before(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        made = self._columns(first_input(args, kwargs).dtype)
        implementation = _supported(self._config, type(self._module).__name__)
        empty = torch.empty(0, 0)
        keys, values = made if made is not None else (empty, empty)
        return args, {**kwargs, _KEYWORD: Columns(keys, values, implementation)}

    def _after(self, module: nn.Module, _: Any, kwargs: dict[str, Any], __: Any) -> None:
        if not kwargs[_KEYWORD].used:
            raise AdapterError(f"{type(module).__name__} did not call transformers' attention interface: the prompts had no effect")


def attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """The model's attention over the prompts' columns and the tokens': query [b, h, q, e], key and value [b, kv heads, k, e]."""
    columns: Columns = kwargs.pop(_KEYWORD)
    columns.used = True
    inner = _function(module, columns.implementation)
    n = len(columns.keys)
    if n == 0:
        return inner(module, query, key, value, attention_mask, **kwargs)
    if attention_mask is None and columns.implementation == "sdpa":
        # Without a mask, sdpa counts the columns from the first: it would take the prompts for the first tokens
        attention_mask = _causal(module, query, key, kwargs.get("is_causal"))
    if (bias := kwargs.get("position_bias")) is not None:
        kwargs["position_bias"] = _in_front(bias, n, 0)
    if attention_mask is not None:
        attention_mask = _in_front(attention_mask, n, attention_mask.dtype == torch.bool)
    key, value = _joined(columns.keys, key), _joined(columns.values, value)
    return inner(module, query, key, value, attention_mask, **kwargs)


def _joined(columns: Tensor, tokens: Tensor) -> Tensor:
    batch, heads, _, size = tokens.shape
    split = columns.to(tokens.dtype).view(-1, heads, size).transpose(0, 1)
    return torch.cat([split.expand(batch, -1, -1, -1), tokens], dim=2)


def _in_front(tensor: Tensor, n: int, fill: float) -> Tensor:
    return torch.cat([tensor.new_full((*tensor.shape[:-1], n), fill), tensor], dim=-1)


def _causal(module: nn.Module, query: Tensor, key: Tensor, asked: bool | None) -> Tensor | None:
    rows, columns = query.shape[2], key.shape[2]
    causal = asked if asked is not None else getattr(module, "is_causal", True)
    if rows == 1 or not causal:
        return None
    return torch.ones(1, 1, rows, columns, dtype=torch.bool, device=query.device).tril()


def _function(module: nn.Module, implementation: str) -> Attend:
    source = importlib.import_module(type(module).__module__)
    found: Attend = source.ALL_ATTENTION_FUNCTIONS.get_interface(implementation, source.eager_attention_forward)
    return found


def _supported(config: Any, owner: str) -> str:
    name = getattr(config, "_attn_implementation", None) or "eager"
    if name not in _SUPPORTED:
        raise AdapterError(
            f"APrompt: {owner} computes its attention by '{name}', which takes no more keys;"
            f" load the model with attn_implementation {' or '.join(map(repr, _SUPPORTED))}"
        )
    return str(name)


def _check(module: Any) -> None:
    owner = type(module).__name__
    source = importlib.import_module(type(module).__module__)
    if not (hasattr(source, "ALL_ATTENTION_FUNCTIONS") and hasattr(source, "eager_attention_forward") and hasattr(module, "config")):
        raise AdapterError(f"APrompt: {owner} does not call transformers' attention interface, so it cannot be given more keys")
    if _supported(module.config, owner) == "eager" and getattr(module, "reorder_and_upcast_attn", False):
        raise AdapterError(
            f"APrompt: {owner} has reorder_and_upcast_attn, which goes past transformers' attention interface;"
            " load the model with attn_implementation 'sdpa'"
        )
