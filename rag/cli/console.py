"""What people see. Results go to stdout, everything else to stderr; colours and live bars only where there is a terminal."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 10_000
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def out() -> Console:
    """Rich on stdout; it looks at ``NO_COLOR`` and at whether stdout is a terminal. A file or a pipe gets lines of any length."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)


def err() -> Console:
    """Rich on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def write(text: str) -> None:
    """Plain text to stdout, at once."""
    sys.stdout.write(plain(text))
    sys.stdout.flush()


def write_json(data: dict[str, Any]) -> None:
    """One JSON object on one line."""
    sys.stdout.write(json.dumps(data, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()  # a full disk is an error of the command, not of the interpreter's end


def plain(text: str) -> str:
    """``text`` without control characters but tab and line end: a document could hold codes that rewrite a terminal."""
    return _CONTROL.sub("\ufffd", text.replace("\r\n", "\n")).encode("utf-8", "replace").decode()


def size(count: float) -> str:
    """A number of bytes for people: "1.4 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
