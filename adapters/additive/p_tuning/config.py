"""Options of P-tuning: Liu et al., "GPT Understands, Too", 2021 (arXiv 2103.10385)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_choice, check_rank
from adapters.methods import method
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class PTuning:
    """``length`` trained vectors stand before the embeddings of the input.

    In training a network makes them out of a table: ``reparameterisation`` "lstm" (the paper's: two bidirectional layers, then two linear
    layers with a ReLU) or "mlp" (three linear layers with ReLUs). ``hidden`` is the width of the network; None: that of the embeddings.
    Only the vectors are kept. The model's answers change as soon as it wears them, trained or not.
    """

    length: int = 9
    reparameterisation: str = "lstm"
    hidden: int | None = None

    def __post_init__(self) -> None:
        check_rank(self.length, "PTuning", "length")
        check_choice(self.reparameterisation, "reparameterisation", "PTuning", ("lstm", "mlp"))
        if self.hidden is not None:
            check_rank(self.hidden, "PTuning", "hidden")
            if self.reparameterisation == "lstm" and self.hidden % 2:
                raise InputError(f"PTuning: hidden is even for an LSTM, whose two directions have half of it each, not {self.hidden}")

    def attach(self, model: nn.Module) -> Worn:
        """Vectors before the input. Raises `AdapterError` if PEFT has no such prompt for the model."""
        from adapters.additive.p_tuning.tuner import attach

        return attach(model, self)
