"""Options of AdaLoRA: Zhang et al., "AdaLoRA: Adaptive Budget Allocation for … Fine-Tuning", ICLR 2023 (arXiv 2303.10512)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters.checks import check_fraction, check_number, check_rank
from adapters.methods import method
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Worn


@method
@dataclass(frozen=True)
class AdaLoRA:
    """W' = W + alpha / (init_r + 1e-5) B diag(E) A, where training zeroes the least important values of E.

    A triplet is a column of B, a value of E and a row of A; their importance decides.
    For ``tinit`` steps each layer has rank ``init_r``; then the budget of the whole model falls along a cubic curve, every ``delta_t``
    steps, to ``target_r`` per layer on average; the last ``tfinal`` steps train what is left. ``beta1`` and ``beta2`` smooth importance and
    its uncertainty. ``orthogonality`` weighs the mean of |A A' - I| and |B' B - I| in the loss. E starts as zeros: at the start the model
    is the base model. ``targets`` as for `LoRA`.
    """

    init_r: int = 12
    target_r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str | tuple[str, ...] = "all"
    tinit: int = 0
    tfinal: int = 0
    delta_t: int = 1
    beta1: float = 0.85
    beta2: float = 0.85
    orthogonality: float = 0.1

    def __post_init__(self) -> None:
        check_rank(self.init_r, "AdaLoRA", "init_r")
        check_rank(self.target_r, "AdaLoRA", "target_r")
        if self.target_r >= self.init_r:
            raise InputError(
                f"AdaLoRA: target_r is smaller than init_r, whose surplus it takes away, not {self.target_r} with {self.init_r};"
                f" without surplus take LoRA"
            )
        check_number(self.alpha, "alpha", "AdaLoRA")
        if self.alpha <= 0:
            raise InputError(f"AdaLoRA: alpha is a number above 0, not {self.alpha}")
        check_fraction(self.dropout, "dropout", "AdaLoRA")
        _check_steps(self.tinit, "tinit", 0)
        _check_steps(self.tfinal, "tfinal", 0)
        _check_steps(self.delta_t, "delta_t", 1)
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            check_fraction(value, name, "AdaLoRA")
            if value == 0:
                raise InputError(f"AdaLoRA: {name} lies between 0 and 1, not 0")
        check_number(self.orthogonality, "orthogonality", "AdaLoRA", 0)

    def attach(self, model: nn.Module) -> Worn:
        """A, E and B beside each target. Raises `AdapterError` if there is no such layer."""
        from adapters.reparameterised.adalora.tuner import attach

        return attach(model, self)


def _check_steps(value: Any, name: str, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"AdaLoRA: {name} is a whole number of steps from {least}, not {value!r}")
