"""What ``adapter_config.json`` holds for a method that PEFT does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters.methods import arguments

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import Method


def described(chosen: Method, model: nn.Module) -> dict[str, Any]:
    """The method's name, its options and the base model's name. There is no "peft_type", so that PEFT refuses it."""
    name = str(getattr(getattr(model, "config", None), "name_or_path", ""))
    return {"method": type(chosen).__name__, **arguments(chosen), "base_model_name_or_path": name}
