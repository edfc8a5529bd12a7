"""Options of BitFit: Ben Zaken, Goldberg and Ravfogel, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models", ACL 2022 (arXiv 2106.10199)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from adapters.checks import check_choice
from adapters.methods import method
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class BitFit:
    """The biases train, and nothing else.

    ``subset`` "query_and_ffn" takes those of the queries and of the first feed-forward layer only. ``add`` gives a bias of zeros to each
    linear layer of the blocks that has none (LLaMA-like models); what has such added biases cannot be merged.
    """

    subset: Literal["all", "query_and_ffn"] = "all"
    add: bool = False

    def __post_init__(self) -> None:
        check_choice(self.subset, "subset", "BitFit", ("all", "query_and_ffn"))
        if not isinstance(self.add, bool):
            raise InputError(f"BitFit: add is true or false, not {self.add!r}")

    def attach(self, model: nn.Module) -> Worn:
        """Biases of zeros where ``add`` asks for them. Raises `AdapterError` for a model without biases, or without those of ``subset``."""
        from adapters.selective.bitfit.tuner import attach

        return attach(model, self)
