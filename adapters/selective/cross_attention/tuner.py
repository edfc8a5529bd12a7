"""Cross-attention tuning on a model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from torch import nn

from adapters.described import described
from adapters.selective.backbone import backbone
from adapters.selective.in_place import InPlace
from rag.core.errors import AdapterError

if TYPE_CHECKING:
    from adapters.selective.cross_attention.config import CrossAttention

NORMS = {
    "EncDecAttention": "layer_norm",
    "encoder_attn": "encoder_attn_layer_norm",
    "crossattention": "ln_cross_attn",
}
"""What cross-attention is called (T5; BART, Marian, NLLB, Whisper; BERT and GPT-2 with a decoder's options), and the norm beside it.
BERT's norm is inside, as ``output.LayerNorm``."""


def attach(model: nn.Module, options: CrossAttention) -> InPlace:
    """The parameters of all cross-attention, and of the embeddings asked for."""
    found = [name for name, _ in model.named_modules() if name.rpartition(".")[2] in NORMS]
    if not found:
        raise AdapterError(
            f"CrossAttention: {type(model).__name__} has no cross-attention; looked for modules called {', '.join(NORMS)}. A decoder-only"
            f" model or an encoder has none: take a method such as LoRA"
        )
    modules = [*_attention(model, found, options.norm), *_embeddings(model, options.embeddings)]
    wanted = {id(parameter) for module in modules for parameter in module.parameters()}
    chosen = {name: parameter for name, parameter in backbone(model).items() if id(parameter) in wanted}
    return InPlace(model, chosen, described(options, model))


def _attention(model: nn.Module, names: list[str], norm: bool) -> Iterator[nn.Module]:
    for name in names:
        own, (parent, _, kind) = model.get_submodule(name), name.rpartition(".")
        yield from (module for path, module in own.named_modules() if _is_linear(module) or (norm and path == "output.LayerNorm"))
        beside = getattr(model.get_submodule(parent), NORMS[kind], None)
        if norm and isinstance(beside, nn.Module):
            yield beside


def _is_linear(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _embeddings(model: nn.Module, endings: tuple[str, ...]) -> Iterator[nn.Module]:
    known = dict(_known_embeddings(model))
    for ending in endings:
        named = [module for name, module in known.items() if f".{name}".endswith(f".{ending}")]
        if not named:
            raise AdapterError(f"CrossAttention: {type(model).__name__} has no embedding called '{ending}'; it has {', '.join(known)}")
        yield from named


def _known_embeddings(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    get_output: Any = getattr(model, "get_output_embeddings", None)
    output: nn.Module | None = get_output() if get_output else None
    # an embedding that encoder and decoder share is known by both names
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.Embedding) or id(module) == id(output):
            yield name, module
