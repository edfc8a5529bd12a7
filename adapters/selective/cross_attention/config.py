"""Options of cross-attention tuning: Gheini, Ren and May, "Cross-Attention is All You Need: Adapting Pretrained Transformers for Machine
Translation", EMNLP 2021 (arXiv 2104.08771)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.methods import method
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class CrossAttention:
    """The decoder's attention to the encoder trains, and nothing else: query, key, value and output, and its layer norm if ``norm``.

    ``embeddings`` are endings of the names of embeddings that train too, those of a new language.
    """

    embeddings: tuple[str, ...] = ()
    norm: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.embeddings, tuple) or not all(isinstance(name, str) and name for name in self.embeddings):
            raise InputError(f"CrossAttention: embeddings is a tuple of names, such as ('encoder.embed_tokens',), not {self.embeddings!r}")
        if not isinstance(self.norm, bool):
            raise InputError(f"CrossAttention: norm is true or false, not {self.norm!r}")

    def attach(self, model: nn.Module) -> Worn:
        """Nothing changes. Raises `AdapterError` for a model without cross-attention, or without such an embedding."""
        from adapters.selective.cross_attention.tuner import attach

        return attach(model, self)
