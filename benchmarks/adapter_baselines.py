"""What the methods are held against, as methods: all weights train, or none but the head's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag.core.errors import AdapterError

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import State, Worn


class Whole:
    """Parameters that train where they are. Nothing is copied, so that memory is that of fine-tuning, and `remove` puts nothing back."""

    def __init__(self, model: nn.Module, chosen: Mapping[str, nn.Parameter], name: str) -> None:
        self._model = model
        self._chosen = dict(chosen)
        self._name = name

    @property
    def model(self) -> nn.Module:
        """The model itself."""
        return self._model

    def trained(self) -> dict[str, nn.Parameter]:
        """What was chosen, under its names in the model."""
        return dict(self._chosen)

    def state(self) -> State:
        """Their values now."""
        return {name: parameter.detach() for name, parameter in self._chosen.items()}

    def load_state(self, state: State) -> None:
        """Take their values from ``state``."""
        for name, parameter in self._chosen.items():
            parameter.data.copy_(state[name])

    def config(self) -> Mapping[str, Any]:
        """The baseline's name."""
        return {"baseline": self._name}

    def merged(self) -> State:
        """Copies of their values."""
        return {name: tensor.clone() for name, tensor in self.state().items()}

    def remove(self) -> None:
        """Freeze them as they are."""
        for parameter in self._chosen.values():
            parameter.requires_grad_(False)


@dataclass(frozen=True)
class FullFineTuning:
    """All parameters train; the head does in any case."""

    def attach(self, model: nn.Module) -> Worn:
        """Nothing changes."""
        from adapters.selective.backbone import backbone

        return Whole(model, backbone(model), "full")


@dataclass(frozen=True)
class HeadOnly:
    """The task's head trains on a frozen model. `adapt` is given no head beside it: ``adapt(model, HeadOnly(), ())``."""

    def attach(self, model: nn.Module) -> Worn:
        """Nothing changes. Raises `AdapterError` if the model has no head."""
        from adapters.anatomy import heads

        chosen = {f"{name}.{key}": value for name in heads(model) for key, value in model.get_submodule(name).named_parameters()}
        if not chosen:
            raise AdapterError(f"{type(model).__name__} has no head to train; load it for classification")
        return Whole(model, chosen, "frozen")
