"""Rotary positions (Su et al. 2021, https://arxiv.org/abs/2104.09864): raw keys turned to where a passage will stand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from rag.core.errors import MissingCapability

Pairing = Literal["half", "interleaved"]

_LENGTH_DEPENDENT = ("dynamic", "longrope")
_LEARNED = ("wpe", "embed_positions", "position_embeddings", "position_embedding")
_GPTJ_BASE = 10_000  # in its code, not in its configuration


@dataclass(frozen=True, eq=False)
class Frequencies:
    """How a model turns: ``per_pair`` [pairs], in radians a position, scaled as the model scales them, and the ``factor`` on cos and sin.

    The factor is YaRN's attention factor (Peng et al. 2023, https://arxiv.org/abs/2309.00071, section 3.4); 1 elsewhere.
    """

    per_pair: torch.Tensor
    factor: float = 1.0


@dataclass(frozen=True, eq=False)
class Rotary:
    """Turns raw keys. Pair f is the dimensions f and f + pairs ("half": Llama, GPT-NeoX) or 2f and 2f + 1 ("interleaved": GPT-J).

    Dimensions behind the pairs stay as they are (partial rotary).
    """

    pairing: Pairing
    frequencies: Frequencies

    @property
    def dims(self) -> int:
        """How many of a head's dimensions turn: the first ones."""
        return 2 * len(self.frequencies.per_pair)

    @property
    def identity(self) -> str:
        """The pairing, the turning dimensions, and a hash of frequencies and factor in float32."""
        digest = hashlib.sha256(self.frequencies.per_pair.detach().to("cpu", torch.float32).numpy().tobytes())
        digest.update(repr(round(self.frequencies.factor, 6)).encode())
        return f"{self.pairing},{self.dims},{digest.hexdigest()[:32]}"

    def rotate(self, keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Raw ``keys`` [..., tokens, head_dim] turned to ``positions`` [tokens]; float32, or float64 where the keys are."""
        return self.turn(positions.to(keys.device), keys.dtype)(keys)

    def turn(self, positions: torch.Tensor, dtype: torch.dtype) -> Turn:
        """What rotates keys of ``dtype`` to ``positions`` [tokens], on the device of these: the angles are computed once for all layers.

        Raw keys carry no factor yet, so it comes in here, once. Angles are computed as the models do, in float32: their keys then agree
        with these to the last bit.
        """
        work = torch.promote_types(dtype, torch.float32)
        angles = positions.to(work)[:, None] * self.frequencies.per_pair.to(positions.device, work)
        return Turn(angles.cos() * self.frequencies.factor, angles.sin() * self.frequencies.factor, self.pairing)


@dataclass(frozen=True, eq=False)
class Turn:
    """The rotation to some positions: ``cos`` and ``sin`` are [tokens, pairs]."""

    cos: torch.Tensor
    sin: torch.Tensor
    pairing: Pairing

    def __call__(self, keys: torch.Tensor) -> torch.Tensor:
        """Raw ``keys`` [..., tokens, head_dim], turned."""
        dims = 2 * self.cos.shape[-1]
        turning, still = keys[..., :dims].to(self.cos.dtype), keys[..., dims:].to(self.cos.dtype)
        half = self.pairing == "half"
        first, second = turning.chunk(2, dim=-1) if half else (turning[..., ::2], turning[..., 1::2])
        turned = first * self.cos - second * self.sin, second * self.cos + first * self.sin
        return torch.cat([*(turned if half else [torch.stack(turned, dim=-1).flatten(-2)]), still], dim=-1)


def frequencies_of(model: nn.Module) -> Frequencies:
    """What ``model``, one of transformers, turns its keys by.

    Raises `MissingCapability` with the reason where passages cannot be moved: learned positions, no rotary positions at all, frequencies
    that depend on the length of the whole text, or that differ between layers.
    """
    name = type(model).__name__
    tables: list[Any] = [module for module in model.modules() if isinstance(getattr(module, "inv_freq", None), torch.Tensor)]
    for table in tables:
        kind = getattr(table, "rope_type", "default")
        if kind in _LENGTH_DEPENDENT:
            raise MissingCapability(
                f"{name}: its rotary frequencies ('{kind}') depend on the length of the whole text, so keys and values of a passage encoded"
                " by itself are not those of the passage in a longer text; use a model with default, linear, llama3 or YaRN scaling"
            )
        if not torch.equal(table.inv_freq, tables[0].inv_freq):
            raise MissingCapability(
                f"{name}: its layers turn by different frequencies; contexts are stored for models with one set of them"
            )
    if tables:
        return Frequencies(tables[0].inv_freq.detach(), float(getattr(tables[0], "attention_scaling", 1.0)))
    for module in model.modules():
        turned = getattr(module, "rotary_dim", None)
        if isinstance(turned, int) and isinstance(getattr(module, "embed_positions", None), torch.Tensor):
            return Frequencies(1.0 / (_GPTJ_BASE ** (torch.arange(0, turned, 2, dtype=torch.int64) / turned)))
    raise MissingCapability(f"{name}: {_why_none(model)}; use a model with rotary positions (Llama, Qwen, Mistral, GPT-NeoX, GPT-J, …)")


def _why_none(model: nn.Module) -> str:
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding) and path.rpartition(".")[2] in _LEARNED:
            return (
                f"its learned positions ({path}) enter keys and values of the first layer, so a passage cannot be moved from where it"
                " was encoded"
            )
    return "no rotary frequencies were found in it"
