"""P-tuning on a model, by PEFT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from adapters.peft_methods import PeftPrompt, check_peft, prompt_task
from rag.core.errors import AdapterError

if TYPE_CHECKING:
    from adapters.additive.p_tuning.config import PTuning


def attach(model: nn.Module, options: PTuning) -> PeftPrompt:
    """Vectors before the embeddings of the input: of the encoder's, where there is one."""
    check_peft()
    from peft import PromptEncoderConfig

    task = prompt_task(model, "PTuning")
    _check_positions(model, task)
    lstm = options.reparameterisation == "lstm"
    width = _width(model)
    hidden = options.hidden or width + width % 2
    config = PromptEncoderConfig(
        task_type=task,
        num_virtual_tokens=options.length,
        token_dim=width,
        num_transformer_submodules=1,  # PEFT's default makes vectors for a T5 decoder too, and never uses them
        encoder_reparameterization_type="LSTM" if lstm else "MLP",
        encoder_hidden_size=hidden // 2 if lstm else hidden,
        encoder_num_layers=2,
        encoder_dropout=0.0,
    )
    return PeftPrompt(model, config)


def _width(model: nn.Module) -> int:
    embeddings: nn.Embedding = model.get_input_embeddings()  # type: ignore[operator]
    return embeddings.embedding_dim


def _check_positions(model: nn.Module, task: str) -> None:
    """A head that looks for places in the input would find them moved by the prompt, and PEFT does not move them back."""
    name = type(model).__name__
    if task in ("TOKEN_CLS", "QUESTION_ANS"):
        raise AdapterError(
            f"PTuning: {name} answers for each token, and PEFT leaves the prompt's tokens among them, so that labels no longer fit;"
            f" take PrefixTuning or PTuningV2"
        )
    if hasattr(model, "score"):
        raise AdapterError(
            f"PTuning: {name} answers at the last token that is no padding, which it cannot find among embeddings;"
            f" take PrefixTuning or PTuningV2"
        )
