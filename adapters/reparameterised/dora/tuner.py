"""DoRA on a model, by PEFT; what it merges to and what it is as plain LoRA, by us: PEFT's own conversion drops the magnitudes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from adapters.peft_methods import LayerFactors, PeftWeights, check_peft, targets

if TYPE_CHECKING:
    from adapters.reparameterised.dora.config import DoRA

_ROUNDING = 8
"""A change of so many machine epsilons of the weight is none."""


def attach(model: nn.Module, options: DoRA) -> PeftWeights:
    """PEFT's DoRA layers around the targets."""
    check_peft()
    from peft import LoraConfig

    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=targets(model, options.targets, "DoRA"),
        use_dora=True,
    )
    return PeftWeights(model, config, merged_weight, partial(factors, rank=options.export_rank))


def merged_weight(layer: Any) -> Tensor:
    """m V / |V|, laid out as the base layer's weight."""
    return _new_weight(layer).to(layer.get_base_layer().weight.dtype)


def factors(layer: Any, rank: int) -> LayerFactors:
    """The best A and B of ``rank`` for W' - W (Eckart and Young), which has full rank as a rule; rows beyond the layer's size are zeros."""
    weight = layer.get_base_layer().weight
    new = _new_weight(layer)
    change = new - weight.to(new.dtype)
    if torch.linalg.matrix_norm(change) <= _ROUNDING * torch.finfo(new.dtype).eps * torch.linalg.matrix_norm(new):
        change = torch.zeros_like(change)  # nothing was learnt: what is left out of rounding errors tells nothing
    if layer.fan_in_fan_out:
        change = change.T
    left, values, right = torch.linalg.svd(change, full_matrices=False)
    kept = min(rank, len(values))
    roots = values[:kept].sqrt()
    a, b = change.new_zeros(rank, change.shape[1]), change.new_zeros(change.shape[0], rank)
    a[:kept], b[:, :kept] = roots[:, None] * right[:kept], left[:, :kept] * roots
    size = torch.linalg.matrix_norm(change)
    missing = float(torch.linalg.matrix_norm(change - b @ a) / size) if size > 0 else 0.0
    kind = layer.lora_A["default"].weight.dtype
    return a.to(kind), b.to(kind), missing


def _new_weight(layer: Any) -> Tensor:
    """m V / |V| in at least float32, laid out as the base layer's weight."""
    weight: Tensor = layer.get_base_layer().weight
    kind = torch.promote_types(weight.dtype, torch.float32)
    whole = weight.to(kind) + layer.get_delta_weight("default").to(kind)
    inputs = 0 if layer.fan_in_fan_out else 1
    magnitude = layer.lora_magnitude_vector["default"].weight.to(kind).unsqueeze(inputs)
    new: Tensor = magnitude * whole / torch.linalg.vector_norm(whole, dim=inputs, keepdim=True)
    return new
