"""Number formats of stored keys and values: float32 (bit for bit), float16, and 8 or 4 bits with scales; what each costs.

The integers are asymmetric (lowest value and step, float16), keys per channel and values per token, after KIVI (Liu et al. 2024,
https://arxiv.org/abs/2402.02750): raw keys have a few channels that are large throughout. On SmolLM2-135M with WikiText-2 the relative
error of 8-bit keys is 0.3% by channel and 0.8% by token, of 4-bit keys 5% and 13%; of values 0.6% by either, and 10%. Symmetric scales
have a fifth to a half more.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from rag.core.errors import InputError, ModelError
from retrievers.context.encoded import Encoded, ModelIdentity

Packed = Mapping[str, torch.Tensor]
"""One passage as it is stored: the tensors that `NumberFormat.layout` names."""

_FLOATS = {32: torch.float32, 16: torch.float16}
_SMALLEST = 2.0**-24
"""The smallest step that float16 can hold: a constant channel has none of its own."""
_CHANNEL, _TOKEN = -2, -1
"""The axis that a scale is shared along."""
_SHARED = {"keys": _CHANNEL, "values": _TOKEN}


@dataclass(frozen=True, slots=True)
class Deviation:
    """What the number format costs: sums of squares of the error and of the numbers themselves. Add them up for more passages."""

    keys_error: float = 0.0
    keys_total: float = 0.0
    values_error: float = 0.0
    values_total: float = 0.0

    def __add__(self, other: Deviation) -> Deviation:
        return Deviation(
            self.keys_error + other.keys_error,
            self.keys_total + other.keys_total,
            self.values_error + other.values_error,
            self.values_total + other.values_total,
        )

    @property
    def keys(self) -> float:
        """Root mean square error of keys relative to their root mean square."""
        return math.sqrt(self.keys_error / self.keys_total) if self.keys_total else 0.0

    @property
    def values(self) -> float:
        """The same of values."""
        return math.sqrt(self.values_error / self.values_total) if self.values_total else 0.0


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """How numbers are stored: ``bits`` 32 and 16 are floats; 8 and 4 are whole steps above the lowest value of a channel or token."""

    name: str
    bits: int

    def layout(self, model: ModelIdentity, tokens: int) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Name, type and shape of every tensor of a passage. The only place that says so: sizes and checks follow from it."""
        layers, heads, dim = model.layers, model.heads, model.head_dim
        made: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {"tokens": (torch.int32, (tokens,))}
        for part, axis in _SHARED.items():
            if self.bits in _FLOATS:
                made[part] = _FLOATS[self.bits], (layers, heads, tokens, dim)
                continue
            made[part] = torch.uint8, (layers, heads, tokens, dim * self.bits // 8)
            scales = (layers, heads, 1, dim) if axis == _CHANNEL else (layers, heads, tokens, 1)
            made[f"{part}.low"] = made[f"{part}.step"] = torch.float16, scales
        return made

    def bytes(self, model: ModelIdentity, tokens: int) -> int:
        """Bytes of a passage of ``tokens`` tokens, scales and token ids included."""
        return sum(kind.itemsize * math.prod(shape) for kind, shape in self.layout(model, tokens).values())

    def check(self, model: ModelIdentity) -> None:
        """Raise `InputError` if a model's keys and values cannot be stored like this."""
        if self.bits == 4 and model.head_dim % 2:
            raise InputError(
                f"int4 stores two numbers in a byte, and the heads of this model have {model.head_dim}: choose float16 or int8"
            )

    def pack(self, encoded: Encoded) -> tuple[Packed, Deviation]:
        """A passage as it is stored, and what that cost. Raises `ModelError` for numbers that are not finite or beyond the format."""
        made: dict[str, torch.Tensor] = {"tokens": torch.tensor(encoded.tokens, dtype=torch.int32)}
        sums: list[float] = []
        largest = torch.finfo(_FLOATS.get(self.bits, torch.float16)).max  # the scales of whole steps are float16
        for part, whole in (("keys", encoded.keys), ("values", encoded.values)):
            numbers = whole.detach().to("cpu", torch.float32)
            if not bool(torch.isfinite(numbers).all()) or float(numbers.abs().max()) > largest:
                raise ModelError(f"the model made {part} that are not finite or beyond ±{largest:.6g}, which {self.name} cannot store")
            made |= self._pack(part, numbers)
            lost = numbers - self._unpack(part, made)
            sums += [float(each.square().sum(dtype=torch.float64)) for each in (lost, numbers)]
        return made, Deviation(*sums)

    def unpack(self, packed: Packed, dtype: torch.dtype) -> Encoded:
        """Keys and values in ``dtype``, on the device where ``packed`` is; not to be written to: they may be those of ``packed``."""
        keys, values = (self._unpack(part, packed).to(dtype) for part in _SHARED)
        return Encoded(tuple(packed["tokens"].tolist()), keys, values)

    def _pack(self, part: str, numbers: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.bits in _FLOATS:
            return {part: numbers.to(_FLOATS[self.bits], copy=True).contiguous()}
        steps, axis = 2**self.bits - 1, _SHARED[part]
        low = numbers.amin(axis, keepdim=True).half()
        step = ((numbers.amax(axis, keepdim=True) - low.float()) / steps).clamp_min(_SMALLEST).half()
        whole = ((numbers - low.float()) / step.float()).round().clamp(0, steps).to(torch.uint8)
        if self.bits == 4:
            whole = whole[..., 0::2] | whole[..., 1::2] << 4
        return {part: whole.contiguous(), f"{part}.low": low, f"{part}.step": step}

    def _unpack(self, part: str, packed: Packed) -> torch.Tensor:
        whole = packed[part]
        if self.bits in _FLOATS:
            return whole.float()
        if self.bits == 4:
            whole = torch.stack((whole & 15, whole >> 4), -1).flatten(-2)
        return torch.addcmul(packed[f"{part}.low"].float(), whole.float(), packed[f"{part}.step"].float())


FORMATS = {
    made.name: made for made in (NumberFormat("float32", 32), NumberFormat("float16", 16), NumberFormat("int8", 8), NumberFormat("int4", 4))
}


def number_format(name: str) -> NumberFormat:
    """The format of that name. Raises `InputError`."""
    if name not in FORMATS:
        raise InputError(f"{name!r} is no number format: choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def check_encoded(encoded: Encoded, model: ModelIdentity, what: str) -> None:
    """Raise `ModelError` unless ``encoded`` has the shape that ``model`` makes."""
    expected = (model.layers, model.heads, len(encoded.tokens), model.head_dim)
    for part, tensor in (("keys", encoded.keys), ("values", encoded.values)):
        if not encoded.tokens or tuple(tensor.shape) != expected:
            raise ModelError(f"{what}: the encoder returned {part} of shape {tuple(tensor.shape)} where its model makes {expected}")


def checksum(packed: Packed) -> str:
    """SHA-256 over names, types, shapes and bytes, in hexadecimal."""
    made = hashlib.sha256()
    for name in sorted(packed):
        tensor = packed[name]
        made.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        made.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return made.hexdigest()


def size(packed: Packed) -> int:
    """Bytes of all tensors."""
    return sum(tensor.nbytes for tensor in packed.values())
