"""Options of a training run, and the learning rate that follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from adapters.checks import check_choice, check_fraction, check_number
from rag.core.errors import InputError

SCHEDULES = ("linear", "cosine", "constant")
PRECISIONS = ("float32", "bfloat16", "float16")
KEEP = ("best", "last")


@dataclass(frozen=True)
class Options:
    """How to train. Defaults of ``lr``, ``warmup`` and ``schedule`` are those of LoRA's paper (2106.09685, appendix D); other methods want
    another ``lr``: see their pages.

    ``lr`` is the peak learning rate of AdamW. ``steps`` (None: as many as ``epochs`` takes) are steps of the optimiser, each over
    ``accumulate`` batches of ``batch`` examples; ``warmup`` is the share of them in which the rate rises. ``precision`` other than
    float32 is mixed: what trains stays float32. ``checkpointing`` computes activations again instead of keeping them.

    ``eval_every`` and ``save_every`` count steps (None: at the end of each epoch). ``patience`` is the number of evaluations without a
    better held-out loss after which training stops (None: never). ``keep`` "best" gives the weights of the best evaluation, where there
    is held-out data; "last" those of the last step.
    """

    lr: float = 2e-4
    epochs: int = 1
    steps: int | None = None
    batch: int = 8
    accumulate: int = 1
    warmup: float = 0.06
    schedule: str = "linear"
    max_grad_norm: float = 1.0
    weight_decay: float = 0.0
    seed: int = 0
    precision: str = "float32"
    checkpointing: bool = False
    eval_every: int | None = None
    patience: int | None = None
    save_every: int | None = None
    keep: str = "best"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "accumulate"):
            _check_count(getattr(self, name), name)
        for name in ("steps", "eval_every", "patience", "save_every"):
            if getattr(self, name) is not None:
                _check_count(getattr(self, name), name)
        check_number(self.lr, "lr", "training", 0)
        if self.lr == 0:
            raise InputError("training: lr is above 0: with 0 nothing is learnt")
        check_number(self.max_grad_norm, "max_grad_norm", "training", 0)
        if self.max_grad_norm == 0:
            raise InputError("training: max_grad_norm is above 0: with 0 nothing is learnt; a large number clips nothing")
        check_number(self.weight_decay, "weight_decay", "training", 0)
        check_fraction(self.warmup, "warmup", "training")
        check_choice(self.schedule, "schedule", "training", SCHEDULES)
        check_choice(self.precision, "precision", "training", PRECISIONS)
        check_choice(self.keep, "keep", "training", KEEP)
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**32:
            raise InputError(f"training: seed is a whole number from 0 to below 2**32, not {self.seed!r}")

    def total(self, per_epoch: int) -> int:
        """Steps of the whole run, with ``per_epoch`` steps in an epoch."""
        return self.steps if self.steps is not None else self.epochs * per_epoch

    def rate(self, step: int, total: int) -> float:
        """The learning rate of step ``step`` (from 0) of ``total``. The first step has a rate above 0, and so has the last."""
        rising = math.ceil(self.warmup * total)
        if step < rising:
            return self.lr * (step + 1) / (rising + 1)
        passed = (step - rising) / max(1, total - rising)
        if self.schedule == "linear":
            return self.lr * (1 - passed)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * passed))
        return self.lr


def _check_count(value: Any, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"training: {name} is a whole number from 1, not {value!r}")
