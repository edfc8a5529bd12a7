"""The parameters of a base model that a selective method may train."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.anatomy import heads

if TYPE_CHECKING:
    from torch import nn


def backbone(model: nn.Module) -> dict[str, nn.Parameter]:
    """All parameters of ``model`` but a head's, by name; a tied one once, under its first name.

    A head is a task's (`heads`), or whatever trains already: a method finds the model frozen.
    """
    left_out = tuple(f"{name}." for name in heads(model))
    return {
        name: parameter for name, parameter in model.named_parameters() if not name.startswith(left_out) and not parameter.requires_grad
    }
