"""Options of Child-Tuning: Xu et al., "Raise a Child in Large Language Model: Towards Effective and Generalizable Fine-tuning",
EMNLP 2021 (arXiv 2109.05687)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from adapters.checks import check_choice, check_number, check_rank, check_share
from adapters.methods import method
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class ChildTuning:
    """Gradients reach a part of the model's own parameters, the child network.

    ``variant`` "D" (task-driven): the share ``p`` of the entries in the blocks with the most Fisher information, chosen once, over
    ``examples`` training examples (None: all). "F" (task-free): at every step each entry's gradient is kept with probability ``p`` and
    divided by it; ``seed`` is that of the draws.
    """

    variant: Literal["D", "F"] = "D"
    p: float = 0.3
    examples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice(self.variant, "variant", "ChildTuning", ("D", "F"))
        check_share(self.p, "p", "ChildTuning")
        check_number(self.seed, "seed", "ChildTuning", 0)
        if not isinstance(self.seed, int):
            raise InputError(f"ChildTuning: seed is a whole number, not {self.seed!r}")
        if self.examples is not None:
            check_rank(self.examples, "ChildTuning", "examples")

    def attach(self, model: nn.Module) -> Worn:
        """Nothing changes. Raises `AdapterError` if ``p`` leaves no entry, and for "D" if the model has no known blocks."""
        from adapters.selective.child_tuning.tuner import attach

        return attach(model, self)
