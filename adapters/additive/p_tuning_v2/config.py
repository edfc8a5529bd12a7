"""Options of P-tuning v2: Liu et al., "P-Tuning v2: Prompt Tuning Can Be Comparable to Fine-tuning …", ACL 2022 (arXiv 2110.07602)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_choice, check_rank
from adapters.methods import method

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class PTuningV2:
    """``length`` trained keys and values stand before those of the input in each layer; a task's head trains beside them.

    ``reparameterisation`` "none" trains them themselves, "mlp" a table and a network with ``hidden`` units that make them. The model's
    answers change as soon as it wears them, trained or not.
    """

    length: int = 4
    reparameterisation: str = "none"
    hidden: int = 512

    def __post_init__(self) -> None:
        check_rank(self.length, "PTuningV2", "length")
        check_choice(self.reparameterisation, "reparameterisation", "PTuningV2", ("none", "mlp"))
        check_rank(self.hidden, "PTuningV2", "hidden")

    def attach(self, model: nn.Module) -> Worn:
        """Keys and values for each layer. Raises `AdapterError` if PEFT has no prefix for such a model."""
        from adapters.additive.p_tuning_v2.tuner import attach

        return attach(model, self)
