"""LoRAHub: Huang et al., "LoraHub: Efficient Cross-Task Generalization via Dynamic LoRA Composition", COLM 2024 (arXiv 2307.13269)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adapters.checks import check_choice, check_number, check_rank
from adapters.lorahub.examples import batches
from rag.core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.lorahub.composed import Composed
    from adapters.lorahub.composition import Stack
    from adapters.lorahub.search import Progress
    from adapters.training.data import Answered


@dataclass(frozen=True)
class LoRAHub:
    """Finds weights w of N LoRAs for a new task: min over w of CE(examples; w) + ``penalty`` · R(w), with |w_i| <= ``bound``.

    The composition adds A and B apart, with the same w: A = sum_i w_i A_i, B = sum_i w_i B_i. ``norm`` "mean" is the released code's
    R = mean |w_i|, "sum" the paper's. ``evaluations`` counts the first, at w = 0, which is the base model; so nothing worse than it is ever
    given back. ``batch`` examples are read at a time; it changes memory, not the result.
    """

    evaluations: int = 40
    bound: float = 1.5
    first_step: float = 0.5
    penalty: float = 0.05
    norm: Literal["mean", "sum"] = "mean"
    search: Literal["cobyla", "nevergrad"] = "cobyla"
    seed: int = 0
    batch: int = 5
    max_tokens: int = 1024

    def __post_init__(self) -> None:
        for name in ("evaluations", "batch", "max_tokens"):
            check_rank(getattr(self, name), "LoRAHub", name)
        for name in ("bound", "first_step", "penalty"):
            check_number(getattr(self, name), name, "LoRAHub", 0)
        if not 0 < self.first_step <= self.bound:
            raise InputError(f"LoRAHub: first_step is above 0 and not above bound ({self.bound:g}), not {self.first_step!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise InputError(f"LoRAHub: seed is a whole number from 0, not {self.seed!r}")
        check_choice(self.norm, "norm", "LoRAHub", ("mean", "sum"))
        check_choice(self.search, "search", "LoRAHub", ("cobyla", "nevergrad"))

    def compose(
        self,
        model: nn.Module,
        tokenizer: Any,
        examples: Sequence[Answered],
        candidates: Sequence[str | Path],
        progress: Progress | None = None,
    ) -> Composed:
        """``model`` with the best composition found of the LoRAs in the folders ``candidates``.

        Raises `AdapterMismatch` if they do not fit each other or the model, `AdapterError` if the loss is not a number, `InputError` for
        examples or a number of candidates that the evaluations are too few for. The model is then as it was.
        """
        from adapters.lorahub.composition import read_stack

        self._check_count(len(candidates))
        return self.compose_stack(model, batches(model, tokenizer, examples, self.batch, self.max_tokens), read_stack(candidates), progress)

    def compose_stack(self, model: nn.Module, prepared: Sequence[Any], stack: Stack, progress: Progress | None = None) -> Composed:
        """As `compose`, with LoRAs that are read and examples that are in batches (``input_ids``, ``attention_mask``, ``labels``)."""
        from adapters.lorahub.composed import Composed
        from adapters.lorahub.composition import WornStack
        from adapters.lorahub.objective import Objective, evaluating
        from adapters.lorahub.search import make_search

        self._check_count(len(stack))
        worn = WornStack(model, stack)
        search = make_search(self.search, self.evaluations, self.bound, self.first_step, self.seed)
        try:
            with evaluating(worn.adapted.model):
                found = search.minimise(Objective(worn, prepared, self.penalty, self.norm), len(stack), progress)
        except BaseException:
            worn.adapted.remove()
            raise
        worn.write(found.weights)
        return Composed(worn.adapted, stack.modules, found.weights, found.values, self)

    def _check_count(self, count: int) -> None:
        if count + 1 > self.evaluations:
            raise InputError(
                f"LoRAHub: {self.evaluations} evaluations do not try each of {count} LoRAs once; choose at most {self.evaluations - 1},"
                f" or raise evaluations to {2 * count} (the paper: 40 for 20)"
            )
