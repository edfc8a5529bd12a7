"""One adapter of the registry, as a list shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import folder as disk
from rag.core.errors import AdapterError


@dataclass(frozen=True)
class Entry:
    """What its card says."""

    name: str
    folder: Path
    method: str
    base: str
    """Name of the base model, "" if it was not told."""
    fingerprint: str
    """Of the base model, "" if it is not known: a PEFT folder does not tell."""
    bytes: int
    """All files together."""
    metrics: Mapping[str, Any]
    problem: str | None = None
    """Why it cannot be worn, if its card cannot be read."""


def read_entry(folder: Path) -> Entry:
    """The adapter in ``folder``. Raises `AdapterError`, `AdapterDamaged`."""
    card = disk.read_card(folder)
    base = card["base"] if isinstance(card["base"], dict) else {}
    metrics = card.get("metrics")
    return Entry(
        folder.name,
        folder,
        str(card["method"]),
        str(base.get("name") or ""),
        str(base.get("fingerprint") or ""),
        _size(folder),
        metrics if isinstance(metrics, dict) else {},
    )


def read_entry_or_problem(folder: Path) -> Entry:
    """As `read_entry`; a damaged adapter is an entry too, so that a list shows it and the others."""
    try:
        return read_entry(folder)
    except AdapterError as error:
        return Entry(folder.name, folder, "", "", "", _size(folder), {}, str(error))


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
