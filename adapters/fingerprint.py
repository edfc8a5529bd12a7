"""What tells one base model from another, so that an adapter is never worn by a model it was not made for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import nn

_SAMPLE = 512
"""Values that are read of each tensor: a model of billions of weights is told apart in seconds."""


def fingerprint(model: nn.Module, without: Iterable[str] = ()) -> str:
    """SHA-256 over names, shapes and evenly spread values of all parameters, but for modules named in ``without`` (a task's head).

    Values are rounded to bfloat16 first, so that a model has the same fingerprint in float32 and in bfloat16.
    """
    left_out = tuple(f"{name}." for name in without)
    return fingerprint_of((name, parameter) for name, parameter in sorted(model.named_parameters()) if not name.startswith(left_out))


def fingerprint_of(parameters: Iterable[tuple[str, torch.Tensor]]) -> str:
    """The same for parameters that come by name, in the order of names, from wherever they are."""
    digest = hashlib.sha256()
    for name, parameter in parameters:
        flat = parameter.detach().reshape(-1)
        step = max(1, flat.numel() // _SAMPLE)
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
        digest.update(flat[::step][:_SAMPLE].to("cpu", torch.bfloat16).contiguous().view(torch.int16).numpy().tobytes())
    return digest.hexdigest()
