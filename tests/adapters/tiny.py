"""Random models of four architectures, small enough for a forward pass in a millisecond."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

NAMES = ("llama", "gpt2", "bert", "t5")


def tiny(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """The model ``name`` in evaluation mode, with the same weights for the same seed. "bert" has a classification head of three labels."""
    import transformers

    torch.manual_seed(seed)
    if name == "llama":
        config = transformers.LlamaConfig(
            vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
        )
        model = transformers.LlamaForCausalLM(config)
    elif name == "gpt2":
        model = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
        )
    elif name == "bert":
        config = transformers.BertConfig(
            vocab_size=100, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_labels=3
        )
        model = transformers.BertForSequenceClassification(config)
    else:
        config = transformers.T5Config(
            vocab_size=100, d_model=32, d_ff=48, d_kv=8, num_layers=2, num_heads=4, decoder_start_token_id=0, pad_token_id=0
        )
        model = transformers.T5ForConditionalGeneration(config)
    _scatter(model, seed)
    return model.to(dtype).eval()


def _scatter(model: nn.Module, seed: int) -> None:
    """Biases and norms of a fresh model are all zeros and ones: too smooth to show a fault."""
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))


def batch_for(name: str, rows: int = 3, length: int = 7) -> dict[str, Tensor]:
    """Inputs with labels for `tiny` models; the last row is padded at its end."""
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, 100, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[-1, -2:] = 0
    if name == "bert":
        labels = torch.arange(rows) % 3
    elif name == "t5":
        labels = torch.randint(3, 100, (rows, 5), generator=generator)
    else:
        labels = ids.masked_fill(mask == 0, -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}
