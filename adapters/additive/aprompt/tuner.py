"""APrompt on a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adapters.additive.aprompt.attention import PromptedAttention
from adapters.additive.aprompt.prompts import Prompts
from adapters.additive.hooked import HookedModules, Undo, beside
from adapters.anatomy import Block, blocks, width

if TYPE_CHECKING:
    from adapters.additive.aprompt.config import APrompt

_FIRST_NORMS = ("input_layernorm", "ln_1", "layer.0.layer_norm")
"""Between a block's input and its self-attention: LLaMA-like, GPT-2, T5. BERT has none there."""


def attach(model: nn.Module, options: APrompt) -> HookedModules:
    """Prompts for each self-attention; of an encoder-decoder model the encoder's."""
    modules: dict[str, nn.Module] = {}
    undo: list[Undo] = []
    try:
        for block in _wearing(blocks(model)):
            place = _Place(model, block)
            prompts = Prompts(place.width, place.kv_width, options)
            modules[place.name] = beside(place.first, prompts)
            undo.append(_prompted(place, prompts))
    except BaseException:
        for step in undo:
            step()
        raise
    return HookedModules(model, options, modules, undo)


def _wearing(found: list[Block]) -> list[Block]:
    encoder = [block for block in found if not block.decoder]
    return encoder or found


def _prompted(place: _Place, prompts: Prompts) -> Undo:
    return PromptedAttention(place.attention, lambda dtype: prompts.columns(lambda vectors: place.project(vectors.to(dtype)))).remove


class _Place:
    """Where a block makes keys and values of its input."""

    def __init__(self, model: nn.Module, block: Block) -> None:
        layers = block.attention.inner
        self.name = layers[0].rpartition(".")[0]
        self.attention: Any = model.get_submodule(self.name)
        self.first = model.get_submodule(layers[0])
        self.width = width(self.first)[0]
        self._fused = len(layers) == 1
        self._linears = [model.get_submodule(name) for name in layers[-2:]]
        out = width(self._linears[-1])[1]
        self.kv_width = out // 3 if self._fused else out
        inside = dict(model.get_submodule(block.name).named_modules())
        self._norm = next((inside[name] for name in _FIRST_NORMS if name in inside), None)

    def project(self, vectors: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [n, kv] of ``vectors`` [n, d] of the block's input, without positions."""
        if self._norm is not None:
            vectors = self._norm(vectors)
        if self._fused:
            _, key, value = self._linears[0](vectors).chunk(3, dim=-1)
        else:
            key, value = (linear(vectors) for linear in self._linears)
        return self._normed(key), value

    def _normed(self, key: Tensor) -> Tensor:
        """``key`` through the norm that some models (Qwen3, OLMo 2) have behind the projection, for each head or for all together."""
        norm: Any = getattr(self.attention, "k_norm", None)
        if norm is None:
            return key
        size = norm.weight.shape[-1]
        normed: Tensor = norm(key.view(*key.shape[:-1], -1, size)).flatten(-2)
        return normed
