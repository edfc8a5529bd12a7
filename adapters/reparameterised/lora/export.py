"""Factors as a PEFT folder of plain LoRA, which PEFT loads and vLLM serves."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from adapters.contract import Factors
from adapters.peft_methods import keeps_transposed
from adapters.reparameterised.lora.config import LoRA

if TYPE_CHECKING:
    from torch import nn

    from adapters.contract import State


def lora_folder(factors: Factors, base: nn.Module) -> tuple[dict[str, Any], State, dict[str, Any]]:
    """``adapter_config.json``, the tensors under PEFT's names, and the card's "method" and "arguments", for a LoRA on ``base``."""
    from peft import LoraConfig

    names = sorted(factors.pairs)
    config = LoraConfig(
        r=factors.r,
        lora_alpha=factors.alpha,  # type: ignore[arg-type]
        target_modules=names,
        fan_in_fan_out=keeps_transposed(base, names),
        inference_mode=True,
    )
    state: State = {}
    for name, (a, b) in factors.pairs.items():
        state[f"base_model.model.{name}.lora_A.weight"] = a
        state[f"base_model.model.{name}.lora_B.weight"] = b
    options = LoRA(r=factors.r, alpha=factors.alpha, targets=tuple(names))
    return (
        {
            **config.to_dict(),  # type: ignore[no-untyped-call]
            "base_model_name_or_path": getattr(base.config, "name_or_path", ""),
        },
        state,
        {"method": "LoRA", "arguments": asdict(options)},
    )
