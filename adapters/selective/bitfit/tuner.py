"""BitFit on a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from adapters.anatomy import blocks, linears
from adapters.described import described
from adapters.selective.backbone import backbone
from adapters.selective.bitfit.added import AddedBiases
from adapters.selective.in_place import InPlace
from rag.core.errors import AdapterError

if TYPE_CHECKING:
    from adapters.selective.bitfit.config import BitFit


def attach(model: nn.Module, options: BitFit) -> InPlace | AddedBiases:
    """The model's own biases, and those that are added."""
    chosen = {name: parameter for name, parameter in backbone(model).items() if name.rpartition(".")[2] == "bias"}
    layers = _query_and_ffn(model) if options.subset == "query_and_ffn" else None
    if layers is not None:
        chosen = {name: parameter for name, parameter in chosen.items() if name.removesuffix(".bias") in layers}
    bare = _without_bias(model, layers) if options.add else {}
    if not chosen and not bare:
        raise AdapterError(
            f"BitFit: {type(model).__name__} has no bias; looked for parameters called bias in {_where(layers)}."
            f" BitFit(add=True) gives its linear layers biases of zeros"
        )
    own = InPlace(model, chosen, described(options, model))
    return AddedBiases(own, bare) if bare else own


def _without_bias(model: nn.Module, layers: set[str] | None) -> dict[str, nn.Module]:
    return {name: layer for name, layer in linears(model) if getattr(layer, "bias", None) is None and (layers is None or name in layers)}


def _query_and_ffn(model: nn.Module) -> set[str]:
    """The layers of the queries and the first of the feed-forward: the paper's "query" and "middle-of-MLP" biases."""
    layers: set[str] = set()
    for block in blocks(model):
        if len(block.attention.inner) == 1:
            raise AdapterError(
                f"BitFit: {block.attention.inner[0]} of {type(model).__name__} keeps query, key and value in one bias, so that the query's"
                f" does not train alone; take subset='all'"
            )
        layers |= {block.attention.inner[0], *block.feed_forward.inner}
    return layers


def _where(layers: set[str] | None) -> str:
    return "all modules" if layers is None else f"{', '.join(sorted({name.rpartition('.')[2] for name in layers}))} of the blocks"
