"""Command lines and settings as they may be published: without the folders of one machine, and without secrets."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_KEPT = 2
"""Last parts of a path outside the repository that are kept: "shared/data" says which data it was."""
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def command_line(arguments: Iterable[str]) -> str:
    """``python -m MODULE`` of this process with ``arguments``, but for ``--json FILE``: where a result goes does not change it."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    kept = [portable(argument) for argument in _without_json(arguments)]
    return shlex.join(["python", "-m", spec.name.removesuffix(".__main__") if spec else Path(sys.argv[0]).stem, *kept])


def portable(value: Any) -> Any:
    """``value`` for JSON: paths relative to the repository or cut to their last parts, addresses without user, password and query."""
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = str(value)
    option, equals, rest = text.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={portable(rest)}"
    if _ADDRESS.match(text):
        return _public(text)
    return _short_path(text) if isinstance(value, Path) or text.startswith(("/", "~", "..")) else text


def _without_json(arguments: Iterable[str]) -> list[str]:
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--json":
            next(rest, None)
        elif not argument.startswith("--json="):
            kept.append(argument)
    return kept


def _short_path(text: str) -> str:
    path = Path(os.path.normpath(Path(text).expanduser().absolute()))
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else "/".join(path.parts[1:][-_KEPT:])


def _public(address: str) -> str:
    from urllib.parse import urlsplit, urlunsplit

    try:
        parts = urlsplit(address)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:  # no address after all; nothing of it is safe to print
        return f"{address.partition('://')[0]}://…"
