"""FishMask on a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.described import described
from adapters.selective.backbone import backbone
from adapters.selective.masked import MaskedEntries, count_of

if TYPE_CHECKING:
    from torch import nn

    from adapters.selective.fish_mask.config import FishMask


def attach(model: nn.Module, options: FishMask) -> MaskedEntries:
    """The largest of all entries of the backbone, whichever parameter they are in."""
    candidates = backbone(model)
    count = count_of(options.ratio, candidates, "FishMask", "ratio")
    return MaskedEntries(model, candidates, count, options.examples, described(options, model))
