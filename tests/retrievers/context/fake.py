"""An encoder without a model: numbers that follow from the text alone, so that any process can tell whether what it read is right."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from retrievers.context.build import Built, build
from retrievers.context.encoded import Encoded, ModelIdentity

MODEL = ModelIdentity(weights="w" * 64, tokenizer="t" * 64, adapter=None, rotary="half:8:abc", layers=3, heads=2, head_dim=8)
OTHER = replace(MODEL, weights="x" * 64)


class FakeEncoder:
    """A token per word. Keys have two large channels, as those of real models have."""

    def __init__(self, identity: ModelIdentity = MODEL) -> None:
        self.identity = identity
        self.seen: list[str] = []

    def encode(self, texts: Sequence[str]) -> list[Encoded]:
        self.seen += texts
        return [self.one(text) for text in texts]

    def one(self, text: str) -> Encoded:
        seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6])
        made = torch.Generator().manual_seed(seed)
        count, model = len(text.split()), self.identity
        shape = (model.layers, model.heads, count, model.head_dim)
        keys, values = torch.randn(shape, generator=made), torch.randn(shape, generator=made)
        keys[..., :2] *= 20
        return Encoded(tuple(range(7, 7 + count)), keys, values)


class CountingEncoder(FakeEncoder):
    """Says beforehand what it makes."""

    def tokenised(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        return [tuple(range(7, 7 + len(text.split()))) for text in texts]


def contexts(count: int, version: int = 0) -> list[tuple[str, str]]:
    return [(f"p{number:03d}", f"passage {number} in version {version} " + "word " * (number % 7)) for number in range(count)]


def built(path: Path, count: int = 12, numbers: str | None = None, segment_bytes: int = 4_000) -> Built:
    """A store of several small segments."""
    return build(path, contexts(count), FakeEncoder(), numbers, segment_bytes=segment_bytes)


def same(first: Encoded, second: Encoded) -> bool:
    return first.tokens == second.tokens and torch.equal(first.keys, second.keys) and torch.equal(first.values, second.values)


def halved(text: str) -> Encoded:
    """What a float16 store returns for ``text``."""
    made = FakeEncoder().one(text)
    return Encoded(made.tokens, made.keys.half().float(), made.values.half().float())
