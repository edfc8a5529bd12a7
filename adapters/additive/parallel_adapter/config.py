"""Options of the parallel adapter: He et al., "Towards a Unified View of Parameter-Efficient Transfer Learning", ICLR 2022
(arXiv 2110.04366)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_number, check_rank
from adapters.methods import method

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class ParallelAdapter:
    """FFN(x) + s (W_up relu(W_down x + b_down) + b_up) in each block, where x is what the feed-forward reads.

    ``bottleneck`` is m: W_down [m, d], W_up [d, m]; ``scale`` is s. W_up and the biases are zero: at the start the model is the base model.
    """

    bottleneck: int = 512
    scale: float = 4.0

    def __post_init__(self) -> None:
        check_rank(self.bottleneck, "ParallelAdapter", "bottleneck")
        check_number(self.scale, "scale", "ParallelAdapter")

    def attach(self, model: nn.Module) -> Worn:
        """A branch beside the feed-forward of each block. Raises `AdapterError` if no block is found."""
        from adapters.additive.parallel_adapter.tuner import attach

        return attach(model, self)
