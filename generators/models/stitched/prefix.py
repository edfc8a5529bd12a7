"""Ordinary reading that begins where the prompt differs from all earlier ones: prefix-exact reuse, for one prompt, blocking.

As in RAGCache (Jin et al. 2024, https://arxiv.org/abs/2404.12457): the prompts of many questions begin with the same passages in the same
order, and what stands behind them cannot change their keys and values.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import torch

from generators.models.decoding import Writing
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.prompt import too_long, whole_prompt
from generators.models.stitched.stitch import read, write
from generators.models.stitched.tree import Block, KnowledgeTree, Part
from rag.core.errors import MissingCapability
from rag.core.types import Generation

if TYPE_CHECKING:
    from transformers import DynamicCache


@dataclass(frozen=True, slots=True)
class Begun:
    """A prompt of which the first ``blocks`` may be ``known``: the template's beginning and then the passages; ``question`` behind them."""

    blocks: tuple[Block, ...]
    question: tuple[int, ...]
    known: tuple[Part, ...]

    @property
    def passages(self) -> int:
        """How many of those given are in it."""
        return len(self.blocks) - 1

    @property
    def hits(self) -> int:
        """How many of these were read before, in this place."""
        return max(0, len(self.known) - 1)

    @property
    def reused(self) -> int:
        """Tokens that need not be computed: those of the template's beginning too."""
        return sum(len(block) for block in self.blocks[: len(self.known)])

    @property
    def notes(self) -> Sequence[str]:
        """None: that nobody has asked alike before is nothing to remark."""
        return ()

    @property
    def tokens(self) -> list[int]:
        """The whole prompt."""
        return [*(token for block in self.blocks for token in block), *self.question]


class PrefixReader:
    """Reads all passages together, as the model was trained to; ``capacity`` bounds the bytes of ``tree``, which are where the model is."""

    def __init__(self, encoder: LocalEncoder, capacity: int = 1 << 30) -> None:
        self.encoder = encoder
        self.tree = KnowledgeTree(capacity)

    def prepare(self, message: str, ids: Sequence[str], texts: Sequence[str], max_tokens: int) -> Begun:
        """The prompt that has ``texts`` where ``message`` says `PASSAGES`; as many as leave room for ``max_tokens``, from the first on.

        Its tokens are those of the whole text. Raises `InputError` if the question does not fit by itself, `MissingCapability` for a model
        that wears link tokens, and what `whole_prompt` does.
        """
        decoder, kept = self.encoder.decoder, len(texts)
        if decoder.links:
            raise MissingCapability(
                f"{decoder.name} wears link tokens ({self.encoder.adapter}), which stand behind passages that do not see each other: answer"
                " with attention 'blocks', or leave the adapter out"
            )
        room = decoder.window - max_tokens
        while True:
            blocks, question = whole_prompt(decoder, message, texts[:kept])
            ends = list(accumulate(map(len, blocks)))
            if ends[-1] + len(question) <= room:
                return Begun(tuple(blocks), tuple(question), tuple(self.tree.longest(blocks)))
            if not kept:
                raise too_long(decoder, ends[-1] + len(question), max_tokens)
            kept = sum(end + len(question) <= room for end in ends[1:kept])

    def answer(self, prepared: Begun, row: Writing) -> Generation:
        """Continue the prompt by ``row``'s sampling. What was not known is computed at once, with the question, and kept."""
        decoder, blocks, known = self.encoder.decoder, prepared.blocks, len(prepared.known)
        rest = [*(token for block in blocks[known:] for token in block), *prepared.question]
        cache = _cache(prepared.known)
        with decoder.lock:  # so that waiting for others does not count as the cost of reading
            started = time.perf_counter()
            logits = read(decoder, cache, rest, prepared.reused)
            seconds = time.perf_counter() - started
        borders = [0, *accumulate(map(len, blocks))][known:]
        parts = [_part(cache, start, end) for start, end in pairwise(borders)]
        self.tree.keep(blocks, parts, [seconds * len(block) / len(rest) for block in blocks[known:]])
        return write(decoder, cache, logits[-1], prepared.reused + len(rest), row)


def _cache(known: Sequence[Part]) -> DynamicCache:
    """One behind the other."""
    from transformers import DynamicCache

    cache = DynamicCache()
    for layer in range(known[0].keys.shape[0] if known else 0):
        keys = torch.cat([part.keys[layer] for part in known], dim=1)
        values = torch.cat([part.values[layer] for part in known], dim=1)
        cache.update(keys[None], values[None], layer)
    return cache


def _part(cache: DynamicCache, start: int, end: int) -> Part:
    """A copy of the tokens from ``start`` to ``end``."""
    layers: list[Any] = cache.layers
    return Part(
        torch.stack([layer.keys[0, :, start:end] for layer in layers]), torch.stack([layer.values[0, :, start:end] for layer in layers])
    )
