"""Options of prefix-tuning: Li and Liang, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", ACL 2021 (arXiv 2101.00190)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_rank
from adapters.methods import method

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class PrefixTuning:
    """``length`` trained keys and values stand before those of the input in each layer of attention.

    In training a network makes them: a row of a table, a linear layer to ``hidden``, tanh, a linear layer to all layers' keys and values.
    Only the keys and values are kept. The model's answers change as soon as it wears a prefix, trained or not.
    """

    length: int = 10
    hidden: int = 512

    def __post_init__(self) -> None:
        check_rank(self.length, "PrefixTuning", "length")
        check_rank(self.hidden, "PrefixTuning", "hidden")

    def attach(self, model: nn.Module) -> Worn:
        """A prefix for each layer. Raises `AdapterError` if PEFT has no prefix for such a model."""
        from adapters.additive.prefix_tuning.tuner import attach

        return attach(model, self)
