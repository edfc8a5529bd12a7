"""The oracle: what stitching must equal, computed in one pass over the whole text."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from generators.models.stitched.decoder import Decoder
from rag.core.errors import InputError


def block_mask(lengths: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """An addend on attention scores [1, 1, tokens, tokens]: each block is causal and sees itself alone, but the last sees all before it."""
    blocks = torch.repeat_interleave(torch.arange(len(lengths), device=device), torch.tensor(list(lengths), device=device))
    same = blocks[:, None] == blocks[None, :]
    last = (blocks == len(lengths) - 1)[:, None]
    return causal_addend((same | last).tril(), dtype)


def causal_addend(seen: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """0 where ``seen`` [rows, keys] and the lowest number of ``dtype`` elsewhere, as [1, 1, rows, keys]."""
    addend = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return addend.masked_fill(~seen, torch.finfo(dtype).min)[None, None]


def joint(decoder: Decoder, blocks: Sequence[Sequence[int]], starts: Sequence[int] | None = None) -> torch.Tensor:
    """Logits [tokens of the last block, vocabulary] of one forward pass over ``blocks`` with `block_mask`.

    ``starts`` are the blocks' first positions; None: one behind the other from 0. An empty block is an `InputError`.
    """
    from transformers import DynamicCache

    if not blocks or not all(blocks) or (starts is not None and len(starts) != len(blocks)):
        raise InputError(f"give blocks of at least one token, and a start for each or none, not {len(blocks)} blocks and starts {starts}")
    lengths = [len(block) for block in blocks]
    firsts = starts if starts is not None else [sum(lengths[:at]) for at in range(len(lengths))]
    positions = torch.cat([torch.arange(first, first + length) for first, length in zip(firsts, lengths, strict=True)])
    tokens = torch.tensor([[token for block in blocks for token in block]], device=decoder.device)
    mask = block_mask(lengths, decoder.dtype, decoder.device)
    with decoder.lock:
        return decoder.forward(tokens, positions[None].to(decoder.device), DynamicCache(), mask, keep=lengths[-1])[0]
