"""The check of a share: how much of a model may train."""

from __future__ import annotations

from typing import Any

from rag.core.errors import InputError


def check_share(value: Any, name: str, owner: str) -> None:
    """A number above 0, up to 1. Raises `InputError`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"{owner}: {name} is a number above 0 and up to 1, not {value!r}")
