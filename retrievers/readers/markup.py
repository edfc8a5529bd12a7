"""Writing Markdown that says what the source said, and nothing it did not."""

from __future__ import annotations

import re
from collections.abc import Sequence

_LOOKS_LIKE_MARKUP = re.compile(r"^( {0,3})(#{1,6}(?:\s|$)|`{3}|~{3}|=+\s*$|-{2,}\s*$)", re.MULTILINE)
_SPACE = re.compile(r"\s+")
_TICKS = re.compile(r"`{3,}")


def paragraph(text: str) -> str:
    """``text`` such that no line of it reads as a heading or a fence."""
    return _LOOKS_LIKE_MARKUP.sub(r"\1\\\2", text)


def heading(level: int, text: str) -> str:
    """A heading of level 1 to 6 on one line."""
    return f"{'#' * min(max(level, 1), 6)} {_SPACE.sub(' ', text).strip()}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """A pipe table whose header is the first row; short rows are filled up. "" if every cell is blank."""
    cells = [[_SPACE.sub(" ", cell).strip().replace("|", "\\|") for cell in row] for row in rows]
    cells = [row for row in cells if any(row)]
    if not cells:
        return ""
    width = max(map(len, cells))
    lines = [f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in cells]
    return "\n".join([lines[0], "|" + " --- |" * width, *lines[1:]])


def code(text: str) -> str:
    """A fenced block, its fence longer than any inside."""
    longest = max(map(len, _TICKS.findall(text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text.strip(chr(10))}\n{fence}"


def indent(text: str, first: str) -> str:
    """``text`` behind the marker ``first``, its further lines below the text of the first."""
    return first + text.replace("\n", "\n" + " " * len(first))
