"""The blocks of a Markdown text: headings, fenced code, tables and prose, by character offset."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})([^\n]*)")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+([^\n]*))?$")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_DELIMITER_ROW = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$")
_CLOSING_HASHES = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")
_NOT_A_HEADING = re.compile(r" {0,3}(?:[-*+>|]|\d+[.)])(?:\s|$)|\s*$| {4}|\t")


class Block(NamedTuple):
    """``text[start:end]``, line ends included; ``level`` (1 to 6) and ``title`` only for a heading."""

    kind: Literal["heading", "code", "table", "prose"]
    start: int
    end: int
    level: int = 0
    title: str = ""


class _Line(NamedTuple):
    start: int
    end: int
    text: str


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of ``text`` in order; they tile it. A fence that never closes runs to the end, as CommonMark has it."""
    lines = _lines(text)
    prose = 0  # where the prose not yet yielded begins
    i = 0
    while i < len(lines):
        found = _block_at(lines, i, prose)
        if found is None:
            i += 1
            continue
        block, i = found
        if prose < block.start:
            yield Block("prose", prose, block.start)
        yield block
        prose = block.end
    if prose < len(text):
        yield Block("prose", prose, len(text))


def first_heading(text: str) -> str:
    """The title of the first heading that has one, or ""."""
    return next((b.title for b in blocks(text) if b.kind == "heading" and b.title), "")


def _block_at(lines: list[_Line], i: int, prose: int) -> tuple[Block, int] | None:
    """The heading, code or table that begins at line ``i`` and the line after it; None if there is none."""
    line = lines[i]
    fence = _FENCE.match(line.text)
    if fence and not (fence[1][0] == "`" and "`" in fence[2]):
        after = _after_fence(lines, i, fence[1])
        return Block("code", line.start, lines[after - 1].end), after
    heading = _ATX.match(line.text)
    if heading:
        title = _CLOSING_HASHES.sub("", heading[2] or "").strip()
        return Block("heading", line.start, line.end, len(heading[1]), title), i + 1
    if i + 1 == len(lines) or not line.text.strip():
        return None
    following = lines[i + 1].text
    underline = _SETEXT.match(following)
    alone = line.start == prose or not lines[i - 1].text.strip()
    if underline and alone and not _NOT_A_HEADING.match(line.text):
        return Block("heading", line.start, lines[i + 1].end, 1 if underline[1][0] == "=" else 2, line.text.strip()), i + 2
    if "|" in line.text and "|" in following and _DELIMITER_ROW.match(following):
        after = i + 2
        while after < len(lines) and "|" in lines[after].text:
            after += 1
        return Block("table", line.start, lines[after - 1].end), after
    return None


def _after_fence(lines: list[_Line], opening: int, mark: str) -> int:
    closing = re.compile(rf" {{0,3}}{re.escape(mark[0])}{{{len(mark)},}}[ \t]*$")
    for i in range(opening + 1, len(lines)):
        if closing.match(lines[i].text):
            return i + 1
    return len(lines)


def _lines(text: str) -> list[_Line]:
    lines, start = [], 0
    while start < len(text):
        newline = text.find("\n", start)
        end = len(text) if newline == -1 else newline + 1
        lines.append(_Line(start, end, text[start:end].rstrip("\r\n")))
        start = end
    return lines
