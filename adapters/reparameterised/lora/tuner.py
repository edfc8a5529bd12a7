"""LoRA on a model, by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adapters.peft_methods import LayerFactors, PeftWeights, check_peft, targets

if TYPE_CHECKING:
    from adapters.reparameterised.lora.config import LoRA


def attach(model: nn.Module, options: LoRA) -> PeftWeights:
    """PEFT's LoRA layers around the targets."""
    check_peft()
    from peft import LoraConfig

    config = LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=targets(model, options.targets, "LoRA"),
        use_rslora=options.rank_stabilised,
    )
    return PeftWeights(model, config, merged_weight, factors)


def merged_weight(layer: Any) -> Tensor:
    """W + scaling B A, laid out as the base layer's weight."""
    delta: Tensor = layer.get_delta_weight("default")
    weight: Tensor = layer.get_base_layer().weight
    return weight + delta.to(weight.dtype)


def factors(layer: Any) -> LayerFactors:
    """A and B, the scaling in B."""
    scaling = float(layer.scaling["default"])
    return layer.lora_A["default"].weight.detach().clone(), layer.lora_B["default"].weight.detach() * scaling, 0.0
