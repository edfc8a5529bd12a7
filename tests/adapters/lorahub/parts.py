"""Tiny LoRAs on disk, and a tokenizer that knows numbers only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adapters import adapt
from adapters.adapted import Adapted
from adapters.methods import build
from tests.adapters.tiny import batch_for, tiny


class Numbers:
    """ "3 17" is two tokens, 3 and 17; 1 starts a text and 2 ends it."""

    eos_token_id = 2
    chat_template = None

    def __call__(self, text: str, add_special_tokens: bool = True, verbose: bool = True) -> dict[str, list[int]]:
        return {"input_ids": ([1] if add_special_tokens else []) + [int(word) for word in text.split()]}


def noisy(on: str = "llama", seed: int = 1, base_seed: int = 0, scale: float = 0.3, **options: Any) -> Adapted:
    """A LoRA whose A and B are random, so that it changes what the model answers."""
    adapted = adapt(tiny(on, torch.float64, base_seed), build("LoRA", {"r": 2, "alpha": 4.0, **options}), head=())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.worn.trained().values():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return adapted


def saved(folder: Path, on: str = "llama", seed: int = 1, card: dict[str, Any] | None = None, **options: Any) -> Path:
    """`noisy`, written to ``folder``."""
    noisy(on, seed, **options).save(folder, card)
    return folder


def trained(folder: Path, batch: dict[str, torch.Tensor], seed: int, steps: int = 80, on: str = "llama") -> Path:
    """A LoRA that learnt ``batch``."""
    torch.manual_seed(seed)
    adapted = adapt(tiny(on, torch.float64), build("LoRA", {"r": 2, "alpha": 4.0, "targets": "all"}), head=())
    optimizer = torch.optim.AdamW(list(adapted.trained().values()), lr=2e-2)
    for _ in range(steps):
        adapted.model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted.save(folder)
    return folder


def logits(model: Any, on: str = "llama") -> torch.Tensor:
    with torch.no_grad():
        return model(**batch_for(on)).logits.clone()
