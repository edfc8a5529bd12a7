"""Random decoders of four architectures with a tokenizer of a letter a token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generators.knn_lm import Decoder

NAMES = ("llama", "gpt2", "gpt_neox", "gptj")
LETTERS = " abcdefghijklmnopqrstuvwxyz."
TEXTS = ["the cat sat on the mat. the dog ran to the cat.", "a", "the dog sat on the cat and the cat sat on the dog."]


def tokenizer() -> Any:
    """One token for each of `LETTERS`."""
    import tokenizers
    from transformers import PreTrainedTokenizerFast

    base = tokenizers.Tokenizer(tokenizers.models.WordLevel({letter: at for at, letter in enumerate(LETTERS)}, unk_token="."))
    base.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    base.decoder = tokenizers.decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=base, eos_token=".")  # type: ignore[no-untyped-call]


def model(name: str = "llama", seed: int = 0, width: int = 16, window: int = 64) -> Any:
    """In float64, with weights far from zero."""
    import torch
    import transformers as t

    torch.manual_seed(seed)
    words, scale = len(LETTERS), 0.5
    common: dict[str, Any] = {"vocab_size": words, "bos_token_id": 0, "eos_token_id": words - 1, "initializer_range": scale}
    made: Any
    if name == "llama":
        made = t.LlamaForCausalLM(
            t.LlamaConfig(
                **common,
                hidden_size=width,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=window,
            )
        )
    elif name == "gpt2":
        made = t.GPT2LMHeadModel(t.GPT2Config(**common, n_embd=width, n_layer=2, n_head=2, n_positions=window))
    elif name == "gpt_neox":
        made = t.GPTNeoXForCausalLM(
            t.GPTNeoXConfig(
                **common,
                hidden_size=width,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=window,
            )
        )
    else:
        made = t.GPTJForCausalLM(t.GPTJConfig(**common, n_embd=width, n_layer=2, n_head=2, n_positions=window, rotary_dim=4))
    return made.double().eval()


def decoder(name: str = "llama", seed: int = 0, width: int = 16, window: int = 64) -> Decoder:
    """The model with its tokenizer."""
    return Decoder(model(name, seed, width, window), tokenizer(), f"tiny {name}")


def saved(folder: Path, seed: int = 0) -> Path:
    """A model folder, in float32."""
    model("llama", seed).float().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def edit(file: Path, *path: str, value: object) -> None:
    """Set one value of a JSON file."""
    held = json.loads(file.read_text())
    at = held
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    file.write_text(json.dumps(held))
