"""AdaLoRA on a model, by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from adapters.peft_methods import LayerFactors, PeftWeights, check_peft, targets
from adapters.reparameterised.adalora.worn import WornAdaLoRA

if TYPE_CHECKING:
    from adapters.reparameterised.adalora.config import AdaLoRA


def attach(model: nn.Module, options: AdaLoRA) -> WornAdaLoRA:
    """PEFT's layers around the targets. Until `WornAdaLoRA.begin` the schedule is a placeholder, which PEFT asks for."""
    check_peft()
    from peft import AdaLoraConfig

    config = AdaLoraConfig(
        init_r=options.init_r,
        target_r=options.target_r,
        lora_alpha=options.alpha,  # type: ignore[arg-type]
        lora_dropout=options.dropout,
        target_modules=targets(model, options.targets, "AdaLoRA"),
        tinit=options.tinit,
        tfinal=options.tfinal,
        deltaT=options.delta_t,
        beta1=options.beta1,
        beta2=options.beta2,
        orth_reg_weight=options.orthogonality,
        total_step=options.tinit + options.tfinal + 1,
    )
    return WornAdaLoRA(PeftWeights(model, config, merged_weight, factors), options)


def merged_weight(layer: Any) -> Tensor:
    """W + alpha / (R + 1e-5) B diag(E) A, laid out as the base layer's weight."""
    delta: Tensor = layer.get_delta_weight("default")
    weight: Tensor = layer.get_base_layer().weight
    return weight + delta.to(weight.dtype)


def factors(layer: Any) -> LayerFactors:
    """diag(E) A, with a row of zeros for each triplet that was taken away, and B, the scaling in it: exact."""
    scaling = layer.scaling["default"] / (layer.ranknum["default"] + 1e-5)
    a = layer.lora_A["default"] * layer.lora_E["default"]
    return a.detach().clone(), (layer.lora_B["default"] * scaling).detach(), 0.0
