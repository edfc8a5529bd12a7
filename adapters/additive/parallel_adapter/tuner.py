"""Parallel adapters on a model."""

from __future__ import annotations

from collections.abc import Mapping
from threading import get_ident
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adapters.additive.hooked import HookedModules, Undo, beside, first_input
from adapters.additive.parallel_adapter.layer import ParallelBottleneck
from adapters.anatomy import blocks, width

if TYPE_CHECKING:
    from adapters.additive.parallel_adapter.config import ParallelAdapter


def attach(model: nn.Module, options: ParallelAdapter) -> HookedModules:
    """A branch beside each feed-forward."""
    modules: dict[str, nn.Module] = {}
    undo: list[Undo] = []
    for part in (block.feed_forward for block in blocks(model)):
        first, last = model.get_submodule(part.inner[0]), model.get_submodule(part.output)
        adapter = beside(last, ParallelBottleneck(width(first)[0], width(last)[1], options.bottleneck, options.scale))
        branch = _Branch(adapter)
        modules[part.name] = adapter
        undo.append(model.get_submodule(part.name).register_forward_pre_hook(branch.enter, with_kwargs=True).remove)
        undo.append(last.register_forward_hook(branch.leave).remove)
    return HookedModules(model, options, modules, undo)


class _Branch:
    """Around a feed-forward that may be two modules (BERT): runs on the input of the first, adds to the output of the last.

    Between the two, what it adds is kept for each thread by itself: several may run one model.
    """

    def __init__(self, adapter: nn.Module) -> None:
        self._adapter = adapter
        self._changes: dict[int, Tensor] = {}

    def enter(self, _: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._changes[get_ident()] = self._adapter(first_input(args, kwargs))

    def leave(self, _: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        # A layer that is called by itself, outside of its feed-forward, is the base model's own
        change = self._changes.pop(get_ident(), None)
        return output if change is None else output + change
