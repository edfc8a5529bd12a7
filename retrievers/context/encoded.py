"""What a passage is to a decoder: its tokens, and the keys and values that every layer made of them."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Whose keys and values they are. Two that differ in anything cannot be mixed.

    ``weights`` and ``adapter`` are hashes (None: no adapter); ``tokenizer`` is one too. ``rotary`` names the positions' encoding: pairing
    ("half" or "interleaved"), rotated dimensions, and the frequencies' hash; "none" for keys without positions, which are never turned
    (cross-attention's).
    """

    weights: str
    tokenizer: str
    adapter: str | None
    rotary: str
    layers: int
    heads: int
    """Of keys and values; a model with grouped queries has more of these."""
    head_dim: int

    def bytes_per_token(self, bytes_per_number: float) -> float:
        """2 × layers × heads × head_dim × bytes: keys and values."""
        return 2 * self.layers * self.heads * self.head_dim * bytes_per_number


@dataclass(frozen=True, slots=True)
class Encoded:
    """One passage, encoded by itself from position 0: what a decoder's layers attend to.

    ``keys`` and ``values``: [layers, heads, tokens, head_dim]. Keys are raw: before any rotation (after the norm, in models that normalise
    keys), so that they are rotated once, to wherever the passage will stand.
    """

    tokens: tuple[int, ...]
    keys: torch.Tensor
    values: torch.Tensor


def token_hash(tokens: Sequence[int]) -> str:
    """SHA-256 of token ids, as 64-bit integers, in hexadecimal: by it a passage is found where only tokens are known."""
    return hashlib.sha256(array("q", tokens).tobytes()).hexdigest()
