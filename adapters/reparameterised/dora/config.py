"""Options of DoRA: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024 (arXiv 2402.09353)."""

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
class DoRA:
    """W' = m V / |V| with V = W + (alpha / r) B A: a LoRA turns each row of the weight [out, in], and m [out] says how long it is.

    |V| are the norms of the rows; no gradient goes through them (section 4.3). m starts as the norms of W and B as zeros: at the start the
    model is the base model. ``targets`` as for `LoRA`. ``export_rank`` is the rank of the plain LoRA that `to_lora` approximates it with.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "attention"
    export_rank: int = 16

    def __post_init__(self) -> None:
        check_rank(self.r, "DoRA")
        check_number(self.alpha, "alpha", "DoRA")
        check_fraction(self.dropout, "dropout", "DoRA")
        check_rank(self.export_rank, "DoRA", "export_rank")

    def attach(self, model: nn.Module) -> Worn:
        """A, B and m at each target. Raises `AdapterError` if there is no such layer."""
        from adapters.reparameterised.dora.tuner import attach

        return attach(model, self)
