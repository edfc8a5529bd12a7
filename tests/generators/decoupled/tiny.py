"""A tiny random T5 and its tokenizer, in no time."""

from __future__ import annotations

from typing import Any

import torch

from generators.decoupled.memory import read, remember
from generators.decoupled.model import EncoderDecoder, Size
from generators.decoupled.tokenizer import train_tokenizer
from retrievers.context.encoded import Encoded

TEXTS = [
    "the cat sat on the mat",
    "Paris is the capital of France",
    "the dog ran to the cat and sat on the mat of the dog",
    "北京是中国的首都",
]
QUESTION = "Who sat on the mat?"
LAYERS, HEADS, DIM = 3, 2, 8
WINDOW = 96


def tokenizer(window: int = WINDOW) -> Any:
    return train_tokenizer([*TEXTS, QUESTION] * 3, 300, window)


def model(seed: int = 3, **settings: Any) -> EncoderDecoder:
    """Every parameter is moved from where it begins: norms that are 1 hide errors."""
    size = Size(**{"d_model": 32, "d_kv": DIM, "d_ff": 48, "num_layers": 2, "num_decoder_layers": LAYERS, "num_heads": HEADS, **settings})
    made = EncoderDecoder.created(tokenizer(), size, seed)
    with torch.no_grad():
        for parameter in made.model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return made


def asked(made: EncoderDecoder, question: str = QUESTION) -> list[int]:
    return made.question(made.ids(question))


def answered(made: EncoderDecoder, contexts: list[Encoded], keep: int = 3) -> torch.Tensor:
    """Logits of the last tokens of the question."""
    return read(made, remember(made, contexts), asked(made), keep)
