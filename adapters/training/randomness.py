"""The state of every random number generator that training draws from, as tensors and JSON: nothing is pickled."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor


def capture() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Torch's generators (of the CPU and of every GPU) as tensors, Python's and NumPy's as JSON."""
    tensors = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda.{number}": state for number, state in enumerate(torch.cuda.get_rng_state_all())}
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    numpy_state = [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)]
    return tensors, {"python": [version, list(words), gauss], "numpy": numpy_state}


def restore(tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """What `capture` gave. A GPU that is gone is left out."""
    torch.set_rng_state(tensors["cpu"].to("cpu", torch.uint8))
    for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (state := tensors.get(f"cuda.{number}")) is not None:
            torch.cuda.set_rng_state(state.to("cpu", torch.uint8), number)
    version, words, gauss = facts["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = facts["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
