"""Options of the serial adapter: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019 (arXiv 1902.00751)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_number, check_rank
from adapters.methods import method
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class SerialAdapter:
    """h ← h + W_up gelu(W_down h + b_down) + b_up on the output of each self-attention and each feed-forward, before the residual is added.

    ``bottleneck`` is m: W_down [m, d], W_up [d, m]. Both are normal around 0 with ``std``, cut at two of it, so that at the start the model
    is nearly the base model. ``norms`` trains the gains and biases of all the base model's LayerNorms and RMSNorms too, as the paper does.
    """

    bottleneck: int = 64
    std: float = 1e-3
    norms: bool = True

    def __post_init__(self) -> None:
        check_rank(self.bottleneck, "SerialAdapter", "bottleneck")
        check_number(self.std, "std", "SerialAdapter", least=0)
        if self.std == 0:
            raise InputError("SerialAdapter: std is above 0; between two matrices of zeros no gradient passes, and neither would train")
        if not isinstance(self.norms, bool):
            raise InputError(f"SerialAdapter: norms is true or false, not {self.norms!r}")

    def attach(self, model: nn.Module) -> Worn:
        """Two adapters in each block. Raises `AdapterError` if no block is found."""
        from adapters.additive.serial_adapter.tuner import attach

        return attach(model, self)
