"""The report's file: a template with its style, its script and the data put in, written whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rag.core.errors import InputError
from rag.evaluate.breakdown import Group
from rag.evaluate.compare import Comparison
from rag.evaluate.report.payload import embedded, payload

LIMIT = 32 * 2**20
"""Bytes of questions, passages and traces that a report holds."""

_SCRIPTS = ("dom.js", "axes.js", "plots.js", "detail.js", "questions.js", "script.js")


def write_report(
    comparison: Comparison,
    path: str | Path,
    *,
    configurations: Mapping[str, Mapping[str, Any]] | None = None,
    rates: Mapping[str, float | None] | None = None,
    settings: Mapping[str, Any] | None = None,
    groups: Mapping[str, Sequence[Group]] | None = None,
    limit: int = LIMIT,
) -> None:
    """Write ``comparison`` to ``path`` as one HTML file that loads nothing; a file there is replaced once the new one is whole.

    ``configurations``, ``rates``, ``settings`` and ``groups`` are those of `rag.evaluate.account.account`. Raises `InputError` if ``path``
    cannot be written, or ``limit`` (bytes of questions, passages and traces) is negative.
    """
    if limit < 0:
        raise InputError(f"limit must be a number of bytes from 0, not {limit!r}")
    if Path(path).is_dir():
        raise InputError(f"{path}: this is a folder; name a file for the report")
    data = payload(
        comparison, configurations=configurations or {}, rates=rates or {}, settings=settings or {}, groups=groups or {}, limit=limit
    )
    _write(Path(path), _page(data))


def _page(data: Mapping[str, Any]) -> str:
    style, script = _part("style.css"), "\n".join(_part(name) for name in _SCRIPTS)
    parts = {
        "title": html.escape(" ".join(_printable(data["data"]["name"]).split())),
        "policy": f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; base-uri 'none'; form-action 'none'",
        "style": style,
        "script": script,
        "data": embedded(data),
    }
    # in one pass: what is put in may hold the marks of other parts
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], _part("template.html"))


def _part(name: str) -> str:
    return files("rag.evaluate.report").joinpath(name).read_text("utf-8").strip()


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with temporary.open("x", encoding="utf-8", newline="\n") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: the report cannot be written ({error.strerror or error}); name a file in a folder that can be written to")
