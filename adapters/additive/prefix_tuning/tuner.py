"""Keys and values before those of the input, by PEFT: prefix-tuning and P-tuning v2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from adapters.peft_methods import PeftPrompt, check_peft, prompt_task

if TYPE_CHECKING:
    from peft import PrefixTuningConfig

    from adapters.additive.prefix_tuning.config import PrefixTuning


def attach(model: nn.Module, options: PrefixTuning) -> PeftPrompt:
    """Prefixes that a network makes in training."""
    return deep_prompt(model, options.length, options.hidden, "PrefixTuning")


def deep_prompt(model: nn.Module, length: int, hidden: int | None, method: str) -> PeftPrompt:
    """``length`` keys and values for each layer; made by a network with ``hidden`` units in training, or (None) trained themselves."""
    check_peft()
    from peft import PrefixTuningConfig

    task = prompt_task(model, method)
    config = PrefixTuningConfig(
        task_type=task,
        num_virtual_tokens=length,
        prefix_projection=hidden is not None,
        encoder_hidden_size=hidden,  # type: ignore[arg-type]
    )
    if task == "SEQ_2_SEQ_LM" and hasattr(model.config, "d_kv"):
        _shape_as_decoder(config, model.config)
    return PeftPrompt(model, config)


def _shape_as_decoder(config: PrefixTuningConfig, t5: Any) -> None:
    """PEFT would take the sizes of the encoder, and heads that fill the width of the model: a T5 decoder's need not."""
    config.num_layers = t5.num_decoder_layers
    config.num_attention_heads = t5.num_heads
    config.token_dim = t5.num_heads * t5.d_kv
