"""What a program says on stderr, kept for the message when it fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_KEPT = 2_000
_SHOWN = 200


class LastWords:
    """Keeps the end of a program's stderr, however much it writes."""

    def __init__(self) -> None:
        self._end = b""

    @contextmanager
    def heard(self) -> Iterator[TextIO]:
        """A file to give the program as its stderr."""
        self._end = b""
        read, write = os.pipe()
        threading.Thread(target=self._listen, args=(read,), name="graft-mcp-stderr", daemon=True).start()
        with os.fdopen(write, "w") as stderr:
            yield stderr

    def told(self) -> str:
        """`` (it said: …)`` with the last line, or nothing."""
        lines = self._end.decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" (it said: {last[-_SHOWN:]})" if last else ""

    def _listen(self, descriptor: int) -> None:
        with os.fdopen(descriptor, "rb", buffering=0) as stderr:
            while piece := stderr.read(4096):
                self._end = (self._end + piece)[-_KEPT:]
