"""P-tuning v2 on a model: the prefixes of prefix-tuning, trained themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from adapters.additive.prefix_tuning.tuner import deep_prompt
from adapters.peft_methods import PeftPrompt

if TYPE_CHECKING:
    from adapters.additive.p_tuning_v2.config import PTuningV2


def attach(model: nn.Module, options: PTuningV2) -> PeftPrompt:
    """Keys and values before those of the input, in each layer."""
    hidden = options.hidden if options.reparameterisation == "mlp" else None
    return deep_prompt(model, options.length, hidden, "PTuningV2")
