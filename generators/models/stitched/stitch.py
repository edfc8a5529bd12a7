"""Encoded passages as one cache, so that a question behind them is all that is computed.

As in TurboRAG (https://arxiv.org/abs/2410.07590) and Block-Attention (https://arxiv.org/abs/2409.15355), without their fine-tuning: no
passage sees another, which for a model that never learnt it is an approximation of reading them all. `recompute` closes the gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from generators.models.checks import fitted
from generators.models.decoding import Writing
from generators.models.stitched.decoder import Decoder
from rag.core.errors import InputError, PromptTooLong
from rag.core.types import Generation
from retrievers.context.encoded import Encoded

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True, slots=True)
class Placed:
    """``encoded`` where its first token stands at position ``start``."""

    encoded: Encoded
    start: int

    @property
    def end(self) -> int:
        """The position behind its last token."""
        return self.start + len(self.encoded.tokens)


def in_a_row(encoded: Sequence[Encoded], start: int = 0) -> list[Placed]:
    """Each behind the one before it, the first at ``start``."""
    placed: list[Placed] = []
    for one in encoded:
        placed.append(Placed(one, placed[-1].end if placed else start))
    return placed


def stitch(decoder: Decoder, placed: Sequence[Placed]) -> DynamicCache:
    """A cache of the passages in the order given, keys rotated to where each stands; a passage does not see the others.

    Positions may have gaps or overlap. Raises `InputError` for keys or values of another shape, `PromptTooLong` past the window.
    """
    from transformers import DynamicCache

    from generators.models.stitched.layers import filled

    expected = (decoder.layers, decoder.heads, decoder.head_dim)
    for number, one in enumerate(placed, start=1):
        tokens = len(one.encoded.tokens)
        for part in (one.encoded.keys, one.encoded.values):
            if tuple(part.shape) != (*expected[:2], tokens, expected[2]):
                raise InputError(
                    f"passage {number}: keys and values of {decoder.name} are [layers, heads, tokens, head_dim] ="
                    f" {[*expected[:2], tokens, expected[2]]}, not {list(part.shape)}; encode it with this model"
                )
        check_place(decoder, one.start, one.end)
    cache = DynamicCache()
    if not placed:
        return cache
    places = torch.cat([torch.arange(one.start, one.end) for one in placed])
    turn = decoder.rotary.turn(places.to(decoder.device), decoder.dtype)
    # Layer by layer: what a rotation needs in between stays in the processor's cache, which halves the time of all this.
    for layer in range(decoder.layers):
        keys = turn(_joined([one.encoded.keys[layer] for one in placed], decoder)).to(decoder.dtype)
        values = _joined([one.encoded.values[layer] for one in placed], decoder).to(decoder.dtype)
        cache.layers.append(filled(keys[None], values[None]))
    return cache


def read(decoder: Decoder, cache: DynamicCache, tokens: Sequence[int], start: int, keep: int = 1) -> torch.Tensor:
    """Compute ``tokens`` from position ``start`` on behind ``cache``, which grows by them; the logits [``keep``, vocabulary] of the last.

    ``keep`` 0 keeps those of all tokens. Raises `PromptTooLong` past the window.
    """
    if not tokens:
        raise InputError("there is nothing to read behind the passages: give the question's tokens")
    check_place(decoder, start, start + len(tokens))
    ids = torch.tensor([list(tokens)], device=decoder.device)
    positions = torch.arange(start, start + len(tokens), device=decoder.device)[None]
    with decoder.lock:
        return decoder.forward(ids, positions, cache, keep=keep)[0]


def write(decoder: Decoder, cache: DynamicCache, logits: torch.Tensor, start: int, row: Writing) -> Generation:
    """Continue ``row``'s prompt behind ``cache``, of which ``logits`` [vocabulary] are the last token's, from position ``start`` on.

    Its sampling is cut to what the window leaves; `PromptTooLong` if that is nothing. It ends early when ``row.cancelled`` is set.
    """
    row.sampling = fitted(row.sampling, start, decoder.window, decoder.name)
    row.begin(lambda ids: _decoded(decoder, ids, True), lambda token: _decoded(decoder, [token], False), decoder.device)
    while True:
        logits = logits.float()
        token = row.choose(logits)
        if not row.take(token, logits, decoder.ends):
            return row.generation(row.adapter or decoder.name)
        logits = read(decoder, cache, [token], start)[0]
        start += 1


def check_place(decoder: Decoder, start: int, end: int) -> None:
    """Raise `PromptTooLong` unless the positions ``start`` to ``end`` are within the window, `InputError` below 0."""
    if start < 0:
        raise InputError(f"a passage starts at a position from 0, not {start}")
    if end > decoder.window:
        raise PromptTooLong(
            f"passages and question reach position {end}; the window of {decoder.name} holds {decoder.window}: give fewer or"
            " shorter passages"
        )


def _joined(parts: Sequence[torch.Tensor], decoder: Decoder) -> torch.Tensor:
    """One behind the other, [heads, tokens, head_dim], where the model is."""
    return torch.cat([part.to(decoder.device) for part in parts], dim=1)


def _decoded(decoder: Decoder, ids: Sequence[int], skip: bool) -> str:
    return str(decoder.tokenizer.decode(list(ids), skip_special_tokens=skip))
