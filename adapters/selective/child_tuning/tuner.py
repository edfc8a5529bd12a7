"""Child-Tuning on a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.anatomy import blocks
from adapters.described import described
from adapters.selective.backbone import backbone
from adapters.selective.child_tuning.task_free import TaskFree
from adapters.selective.in_place import InPlace
from adapters.selective.masked import MaskedEntries, count_of

if TYPE_CHECKING:
    from torch import nn

    from adapters.selective.child_tuning.config import ChildTuning


def attach(model: nn.Module, options: ChildTuning) -> MaskedEntries | TaskFree:
    """Variant D over the parameters of the blocks, F over all but the head's."""
    if options.variant == "F":
        return TaskFree(InPlace(model, backbone(model), described(options, model)), options.p, options.seed)
    inside = tuple(f"{block.name}." for block in blocks(model))
    candidates = {name: parameter for name, parameter in backbone(model).items() if name.startswith(inside)}
    count = count_of(options.p, candidates, "ChildTuning", "p")
    return MaskedEntries(model, candidates, count, options.examples, described(options, model))
