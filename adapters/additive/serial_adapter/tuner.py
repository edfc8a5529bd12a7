"""Serial adapters on a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adapters.additive.hooked import HookedModules, Undo, beside
from adapters.additive.serial_adapter.layer import SerialBottleneck
from adapters.anatomy import blocks, width

if TYPE_CHECKING:
    from adapters.additive.serial_adapter.config import SerialAdapter


def attach(model: nn.Module, options: SerialAdapter) -> HookedModules:
    """An adapter behind the last linear layer of each self-attention and each feed-forward."""
    modules: dict[str, nn.Module] = {}
    undo: list[Undo] = []
    for name in (output for block in blocks(model) for output in (block.attention.output, block.feed_forward.output)):
        layer = model.get_submodule(name)
        modules[name] = beside(layer, SerialBottleneck(width(layer)[1], options.bottleneck, options.std))
        undo.append(layer.register_forward_hook(_behind(modules[name])).remove)
    return HookedModules(model, options, modules, undo, norm_parameters(model) if options.norms else {})


def norm_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Gains and biases of all LayerNorms and RMSNorms, by name; each architecture has a class of its own for the latter."""
    return {
        f"{name}.{key}": parameter
        for name, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) or type(module).__name__.endswith(("LayerNorm", "RMSNorm"))
        for key, parameter in module.named_parameters(recurse=False)
    }


def _behind(adapter: nn.Module) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor]:
    def hook(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        changed: Tensor = adapter(output)
        return changed

    return hook
