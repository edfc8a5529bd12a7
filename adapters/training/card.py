"""The run card: all that is needed to train the same again, and what came of it. It goes into the adapter's own card."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from adapters.training.data import DataFile
from adapters.training.options import Options
from adapters.training.trainer import Outcome

_PACKAGES = ("graft-rag", "torch", "transformers", "peft", "accelerate", "safetensors")


def run_card(
    data: DataFile,
    held_out: DataFile | None,
    max_tokens: int,
    options: Options,
    outcome: Outcome,
    cut: Mapping[str, int] | None = None,
    labels: Sequence[str] = (),
    attention: str = "",
) -> dict[str, Any]:
    """``Adapted.save(folder, run_card(…))``; method, arguments and base are added there. Losses step by step are in ``losses.jsonl``.

    ``cut`` are the numbers of examples that were cut to ``max_tokens``, by part; ``labels`` are a classifier's, in its outputs' order;
    ``attention`` says what tokens saw, where the task masked some of it.
    """
    return {
        "data": described(data),
        "held_out": described(held_out) if held_out is not None else None,
        "max_tokens": max_tokens,
        "cut": dict(cut or {}),
        **({"labels": list(labels)} if labels else {}),
        **({"attention": attention} if attention else {}),
        "options": asdict(options),
        "outcome": {**asdict(outcome), "held_out": [{"step": step, "loss": loss} for step, loss in outcome.held_out]},
        "versions": versions(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads",
    }


def described(data: DataFile) -> dict[str, Any]:
    """A file by its name, size and content's SHA-256; not by its path, which is nobody else's."""
    return {"file": data.path.name, "bytes": data.bytes, "sha256": data.sha256, "examples": len(data.records)}


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
