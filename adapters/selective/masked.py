"""Single entries of the base model's parameters, chosen once by their Fisher information and trained where they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.selective import sparse_state
from adapters.selective.fisher import Fisher
from adapters.selective.originals import Originals
from rag.core.errors import AdapterError

if TYPE_CHECKING:
    from adapters.contract import State


class MaskedEntries:
    """The ``count`` entries of ``candidates`` with the most Fisher information train; all others stay what they are, bit for bit.

    They are known after `prepare` (from ``examples`` examples, None: all) or `load_state` (from the file), and then for good. Gradients of
    the others are zero before a step, and their values are put back after it, so that no optimiser moves them: not by weight decay, nor by
    momentum. Memory beside training: the originals on the CPU (of all candidates before the choice, then of those with a chosen entry) and
    a byte an entry on the device. After each step the originals go to the device, a parameter at a time.
    """

    def __init__(
        self, model: nn.Module, candidates: Mapping[str, nn.Parameter], count: int, examples: int | None, config: Mapping[str, Any]
    ) -> None:
        self._model = model
        self._candidates = dict(candidates)
        self._count = count
        self._examples = examples
        self._config = dict(config)
        self._originals = Originals(candidates)
        self._masks: dict[str, Tensor] | None = None

    @property
    def model(self) -> nn.Module:
        """The base model itself."""
        return self._model

    def entries(self) -> int:
        """How many entries may change: those of `trained` that do train."""
        return self._count

    def size(self) -> int:
        """Bytes of the state: an index of 8 and a value an entry."""
        return self._count * (8 + max(parameter.element_size() for parameter in self._candidates.values()))

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters with a chosen entry; all candidates before `prepare`. Only the chosen entries of them move."""
        names = self._candidates if self._masks is None else self._masks
        return {name: self._candidates[name] for name in names}

    def prepare(self, losses: Callable[[], Iterator[Tensor]]) -> None:
        """Choose the entries. A choice that was made before, or came from a file, stays.

        Raises `AdapterError` if there are no examples or a gradient is not finite.
        """
        if self._masks is not None:
            return
        fisher = Fisher(self._candidates)
        fisher.measure(islice(losses(), self._examples))
        self._choose(fisher.largest(self._count))

    def begin(self, total: int) -> None:
        """Nothing depends on the number of steps."""

    def before_step(self) -> None:
        """Zero the gradients of all that was not chosen."""
        for name, mask in self._chosen().items():
            gradient = self._candidates[name].grad
            if gradient is not None:
                gradient.masked_fill_(~mask.to(gradient.device), 0)

    def after_step(self, step: int) -> None:
        """Put back all that was not chosen."""
        with torch.no_grad():
            for name, mask in self._chosen().items():
                parameter = self._candidates[name]
                parameter.copy_(torch.where(mask.to(parameter.device), parameter, self._originals.of(name)))

    def training_state(self) -> State:
        """Nothing: what `prepare` chooses from the same examples is the same."""
        return {}

    def load_training_state(self, state: State) -> None:
        """Nothing."""

    def state(self) -> State:
        """The chosen entries: flat indices and values. Raises `AdapterError` before they are chosen."""
        return sparse_state.pack(self._candidates, self._chosen())

    def check_state(self, state: State) -> None:
        """Raise `AdapterMismatch` unless ``state`` holds as many entries of this model as train here."""
        sparse_state.check(self._candidates, state, self._count)

    def load_state(self, state: State) -> None:
        """Take the choice and the values of ``state``; what was trained before is undone."""
        self.check_state(state)
        self._originals.put_back()
        masks = sparse_state.masks_of(self._candidates, state)
        self._choose(masks)
        sparse_state.unpack(self._candidates, masks, state)

    def config(self) -> Mapping[str, Any]:
        """The method and its options."""
        return dict(self._config)

    def merged(self) -> State:
        """Copies of the parameters with a chosen entry. Raises `AdapterError` before they are chosen."""
        return {name: self._candidates[name].detach().clone() for name in self._chosen()}

    def remove(self) -> None:
        """Put the originals back, and freeze."""
        self._originals.put_back()
        for parameter in self._candidates.values():
            parameter.requires_grad_(False)
            parameter.grad = None

    def _choose(self, masks: dict[str, Tensor]) -> None:
        self._masks = masks
        self._originals.hold(masks)
        for name, parameter in self._candidates.items():
            parameter.requires_grad_(name in masks)
            parameter.grad = None

    def _chosen(self) -> dict[str, Tensor]:
        if self._masks is None:
            raise AdapterError(
                f"{self._config['method']} has not chosen the entries that train: train it first (`prepare` looks at examples), or load it"
            )
        return self._masks


def count_of(share: float, candidates: Mapping[str, nn.Parameter], owner: str, option: str) -> int:
    """How many entries a ``share`` of ``candidates`` is, rounded down. Raises `AdapterError` if that is none."""
    total = sum(parameter.numel() for parameter in candidates.values())
    count = int(share * total)
    if not count:
        raise AdapterError(f"{owner}: {option}={share:g} of {total} parameters is less than one; take a larger {option}")
    return count
