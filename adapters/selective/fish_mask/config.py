"""Options of FishMask: Sung, Nair and Raffel, "Training Neural Networks with Fixed Sparse Masks", NeurIPS 2021 (arXiv 2111.09839)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters.checks import check_rank, check_share
from adapters.methods import method

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class FishMask:
    """The entries of the model's own parameters with the most Fisher information train, all others stay as they are.

    ``ratio`` is their share of all parameters but the head's; ``examples`` is how many training examples (at most) the information is
    measured on, a gradient each. The labels are taken as given (the paper's "empirical").
    """

    ratio: float = 0.005
    examples: int = 1024

    def __post_init__(self) -> None:
        check_share(self.ratio, "ratio", "FishMask")
        check_rank(self.examples, "FishMask", "examples")

    def attach(self, model: nn.Module) -> Worn:
        """Nothing changes; the entries are chosen by `prepare` or come from a file. Raises `AdapterError` if ``ratio`` leaves none."""
        from adapters.selective.fish_mask.tuner import attach

        return attach(model, self)
