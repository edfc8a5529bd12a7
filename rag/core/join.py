"""Bringing branches back together."""

from __future__ import annotations

from typing import Any

from rag.core.registry import component


@component
class First:
    """Passes on the first value that arrives; put it where conditional branches meet again."""

    passes_on = True  # its value is one of its inputs, so what their nodes write is still the answer and is streamed

    def run(self, *values: Any) -> Any:
        """Return the value of the first edge, in order of connection, whose branch was taken."""
        return values[0]
