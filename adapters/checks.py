"""Checks that options of several methods share. Each raises `InputError`."""

from __future__ import annotations

import math
from typing import Any

from rag.core.errors import InputError


def check_rank(value: Any, owner: str, name: str = "r") -> None:
    """A whole number from 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{owner}: {name} is a whole number from 1, not {value!r}")


def check_fraction(value: Any, name: str, owner: str) -> None:
    """A number from 0 to below 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise InputError(f"{owner}: {name} is a number from 0 to below 1, not {value!r}")


def check_share(value: Any, name: str, owner: str) -> None:
    """A number above 0, up to 1: how much of a model may train."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise InputError(f"{owner}: {name} is a number above 0 and up to 1, not {value!r}")


def check_number(value: Any, name: str, owner: str, least: float = -math.inf) -> None:
    """A finite number, not below ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < least:
        bound = "" if least == -math.inf else f" from {least:g}"
        raise InputError(f"{owner}: {name} is a number{bound}, not {value!r}")


def check_choice(value: Any, name: str, owner: str, allowed: tuple[str, ...]) -> None:
    """One of ``allowed``."""
    if value not in allowed:
        raise InputError(f"{owner}: {name} is one of {', '.join(map(repr, allowed))}, not {value!r}")
