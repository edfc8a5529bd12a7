"""AdaLoRA in training: the penalty on its factors, and PEFT's allocator of ranks behind each step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.contract import Factors
from adapters.peft_methods import PeftWeights
from rag.core.errors import AdapterError, InputError

if TYPE_CHECKING:
    from adapters.contract import State
    from adapters.reparameterised.adalora.config import AdaLoRA

_AVERAGES = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""PEFT's allocator keeps them by the name of the parameter."""
_MASK = "mask"


class WornAdaLoRA:
    """``weights`` with a schedule.

    What is saved keeps the full rank in all layers, zeros included: PEFT would cut each layer to its own rank, which fits no fresh model.
    """

    def __init__(self, weights: PeftWeights, options: AdaLoRA) -> None:
        self._weights = weights
        self._options = options
        self._tuner: Any = weights.peft.base_model
        self._total: int | None = None

    @property
    def model(self) -> nn.Module:
        """PEFT's wrapper."""
        return self._weights.model

    def trained(self) -> dict[str, nn.Parameter]:
        """A, E and B of each layer."""
        return self._weights.trained()

    def state(self) -> State:
        """A [init_r, in], E [init_r, 1] and B [out, init_r] of each layer, under PEFT's names."""
        return {name.removesuffix(".default"): parameter.detach() for name, parameter in self.trained().items()}

    def load_state(self, state: State) -> None:
        """Take A, E and B."""
        with torch.no_grad():
            for name, parameter in self.trained().items():
                parameter.copy_(state[name.removesuffix(".default")])

    def config(self) -> Mapping[str, Any]:
        """PEFT's ``adapter_config.json``, with one rank for all layers."""
        return {**self._weights.config(), "rank_pattern": None}

    def merged(self) -> State:
        """Of each layer the new weight."""
        return self._weights.merged()

    def to_lora(self) -> Factors:
        """Exactly the same as plain LoRA of rank ``init_r``."""
        return self._weights.to_lora()

    def remove(self) -> None:
        """Take PEFT's layers out again."""
        self._weights.remove()

    def begin(self, total: int) -> None:
        """Set the schedule for ``total`` steps. Raises `InputError` if none is left in which ranks could be taken away."""
        first, last = max(1, self._options.tinit), self._options.tfinal
        if total <= first + last:
            raise InputError(
                f"AdaLoRA: {total} steps leave none in which ranks could be taken away: the first {first} (tinit, at least one to measure"
                f" importance) and the last {last} (tfinal) train only; take at least {first + last + 1} steps, or smaller tinit and tfinal"
            )
        self._total = total
        allocator = self._tuner.rankallocator
        allocator.set_total_step(total)
        allocator.peft_config.rank_pattern = None
        allocator.reset_ipt()

    def plan(self) -> str:
        """Ranks are spread before the end, the budget is met only then."""
        return "meets its budget of ranks only in its last phase"

    def before_step(self) -> None:
        """Nothing: importance is measured behind the step."""

    def after_step(self, step: int) -> None:
        """Measure importance, and zero what is over the budget. Raises `AdapterError` without `begin` or without gradients."""
        if self._total is None:
            raise AdapterError("AdaLoRA: a step was taken before training began; call begin(total) with the number of steps first")
        taken = step + 1  # PEFT takes the last ranks away at its step number total - tfinal, which counting from 0 may never reach
        if taken < self._total - self._options.tfinal:
            self._check_gradients()
        self._tuner.update_and_allocate(taken)

    def training_state(self) -> State:
        """PEFT's averages of importance by parameter, and the last mask of ranks by layer."""
        pattern: dict[str, list[bool]] = self._tuner.rankallocator.peft_config.rank_pattern or {}
        averages = {f"{kind}/{name}": tensor for kind in _AVERAGES for name, tensor in getattr(self._tuner.rankallocator, kind).items()}
        return {**averages, **{f"{_MASK}/{name}": torch.tensor(mask) for name, mask in pattern.items()}}

    def load_training_state(self, state: State) -> None:
        """Go on with these averages and this mask."""
        device = next(self._tuner.parameters()).device
        for kind in _AVERAGES:
            setattr(self._tuner.rankallocator, kind, {name: tensor.to(device) for name, tensor in _of(kind, state).items()})
        pattern = {name: mask.tolist() for name, mask in _of(_MASK, state).items()}
        self._tuner.rankallocator.peft_config.rank_pattern = pattern or None

    def penalty(self) -> Tensor:
        """``orthogonality`` times the mean over all A and B of |A A' - I| and |B' B - I|, Frobenius norms: a scalar."""
        grams = [
            gram
            for layer in self._weights.layers().values()
            for a, b in [(layer.lora_A["default"], layer.lora_B["default"])]
            for gram in (a @ a.T, b.T @ b)
        ]
        norms = [torch.linalg.matrix_norm(gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)) for gram in grams]
        return self._options.orthogonality * torch.stack(norms).mean()

    def _check_gradients(self) -> None:
        missing = [name for name, parameter in self.trained().items() if parameter.grad is None]
        if missing:
            raise AdapterError(
                f"AdaLoRA: {len(missing)} of its parameters have no gradient behind the step ({missing[0]}, …): call after_step before the"
                f" gradients are set to None, and leave out of targets what the model does not use"
            )


def _of(kind: str, state: State) -> State:
    """The tensors under ``kind``, without that beginning of their names."""
    return {key.removeprefix(f"{kind}/"): tensor for key, tensor in state.items() if key.startswith(f"{kind}/")}
