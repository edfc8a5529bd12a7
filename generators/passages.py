"""Passages as a prompt shows them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rag.core.types import Hit, Passage
from retrievers.prompting import as_data

_BLANK_LINES = re.compile(r"\n\s*\n")


def numbered(hits: Sequence[Hit]) -> str:
    """ "[1] …", "[2] …", a blank line between them, in the order of ``hits``: "[n]" in a reply means ``hits[n - 1]``."""
    return "\n\n".join(f"[{number}] {passage_data(hit.passage)}" for number, hit in enumerate(hits, start=1))


def passage_data(passage: Passage) -> str:
    """Title and text of ``passage``, as data."""
    text = _BLANK_LINES.sub("\n", as_data(passage.text).strip())  # a blank line ends a passage in the prompt, so none may hold one
    return f"{as_data(passage.title).strip()}\n{text}" if passage.title else text
