"""Options of LoRA: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022 (arXiv 2106.09685)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_fraction, check_number, check_rank
from adapters.methods import method

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class LoRA:
    """y = W x + (alpha / r) B A dropout(x), with A [r, in] random and B [out, r] zero: at the start the model is the base model.

    ``targets`` are endings of the names of linear layers, "attention" (those that read its input; the paper takes q and v) or "all" in the
    blocks. ``rank_stabilised`` divides by the root of r instead of r (Kalajdzievski 2023).
    """

    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "attention"
    rank_stabilised: bool = False

    def __post_init__(self) -> None:
        check_rank(self.r, "LoRA")
        check_number(self.alpha, "alpha", "LoRA")
        check_fraction(self.dropout, "dropout", "LoRA")

    def attach(self, model: nn.Module) -> Worn:
        """A and B beside each target. Raises `AdapterError` if there is no such layer."""
        from adapters.reparameterised.lora.tuner import attach

        return attach(model, self)
