"""What a method of adaptation offers. Only `Method` and `Worn` are asked of all; the others say what else one can do.

A method is a frozen dataclass of its options. Attached to a model it is `Worn`: the base model's weights stay what they are (bit for bit
again after `remove`), and what it learnt is a flat dictionary of tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import nn

    State = dict[str, torch.Tensor]


class Method(Protocol):
    """The options of a method: a frozen dataclass that imports no torch."""

    def attach(self, model: nn.Module) -> Worn:
        """Put the method on ``model``, whose parameters are frozen but for those of a head, and which is on its device already.

        At the start the model answers as before, unless the method's page says otherwise. Raises `AdapterError` if the model has no place
        for it, naming what was looked for.
        """
        ...


@runtime_checkable
class Worn(Protocol):
    """A method on a model."""

    @property
    def model(self) -> nn.Module:
        """What to call: the base model itself, or a wrapper around it."""
        ...

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that train, by name."""
        ...

    def state(self) -> State:
        """What a file must hold to wear this again. What only training needs is left out."""
        ...

    def load_state(self, state: State) -> None:
        """Take the tensors of ``state``, whose names and shapes are those of `state` here."""
        ...

    def config(self) -> Mapping[str, Any]:
        """The content of ``adapter_config.json``: PEFT's own where PEFT has the method."""
        ...

    def remove(self) -> None:
        """Give the base model back as it was, bit for bit."""
        ...


@runtime_checkable
class Merges(Protocol):
    """Its effect can be written into the base model's weights."""

    def merged(self) -> State:
        """New values of the base model's parameters, under their own names; those that stay are left out. Nothing is changed here."""
        ...


@runtime_checkable
class ChecksState(Protocol):
    """Its state depends on what it was trained with: only a file tells the names and shapes, and `load_state` takes any that fit."""

    def check_state(self, state: State) -> None:
        """Raise `AdapterMismatch` if ``state`` cannot be worn here. Changes nothing."""
        ...


@dataclass(frozen=True)
class Factors:
    """A plain LoRA: for each linear layer W [out, in] of the base, ``A`` [r, in] and ``B`` [out, r] with W' = W + (alpha / r) B A."""

    r: int
    alpha: float
    pairs: Mapping[str, tuple[torch.Tensor, torch.Tensor]]
    """(A, B) by the name of the layer in the base model."""
    residual: float = 0.0
    """Largest share of a layer's change that the factors leave out: |W' - W - (alpha / r) B A| / |W' - W|, Frobenius norms."""


@runtime_checkable
class GivesLora(Protocol):
    """It can be written as plain LoRA, which vLLM serves."""

    def to_lora(self) -> Factors:
        """The factors, and how much they leave out."""
        ...


@runtime_checkable
class Links(Protocol):
    """It adds tokens that stand behind passages: these see themselves alone, and link tokens all before them."""

    def links(self) -> tuple[int, ...]:
        """Their ids, in the order in which they stand: they follow those of the base model's vocabulary."""
        ...

    def leaves_text(self) -> bool:
        """Whether text without them is read as by the base model."""
        ...


@runtime_checkable
class NeedsExamples(Protocol):
    """It looks at training examples before the first step."""

    def prepare(self, losses: Callable[[], Iterator[torch.Tensor]]) -> None:
        """``losses()`` gives the mean negative log-likelihood of one example after the other, each with its graph."""
        ...


@runtime_checkable
class Steps(Protocol):
    """It has a say in each step of the optimiser."""

    def begin(self, total: int) -> None:
        """Training is about to take ``total`` steps."""
        ...

    def before_step(self) -> None:
        """The gradients are complete and not used yet."""
        ...

    def after_step(self, step: int) -> None:
        """Step number ``step`` (from 0) was taken; the gradients still stand."""
        ...


@runtime_checkable
class Planned(Protocol):
    """It follows a plan over all steps: what it wears before the last one is not what it promises."""

    def plan(self) -> str:
        """What only the last step brings, for people."""
        ...


@runtime_checkable
class Penalised(Protocol):
    """It adds to the loss."""

    def penalty(self) -> torch.Tensor:
        """A scalar."""
        ...


@runtime_checkable
class Sparse(Protocol):
    """Only some entries of the parameters in `Worn.trained` train."""

    def entries(self) -> int:
        """How many."""
        ...

    def size(self) -> int:
        """Bytes of `Worn.state`, which may not be known yet."""
        ...


@runtime_checkable
class TrainingState(Protocol):
    """It keeps more than parameters while it trains (averages, masks, generators), and a stopped run can go on all the same.

    A method that is `Steps` without being this cannot be resumed.
    """

    def training_state(self) -> State:
        """All that only training needs and that no parameter of `Worn.trained` holds."""
        ...

    def load_training_state(self, state: State) -> None:
        """Take what `training_state` gave, after `Steps.begin` (and `NeedsExamples.prepare`)."""
        ...
