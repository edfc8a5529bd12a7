"""CSV and TSV: one document per row."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import NamedTuple

from rag.core.errors import ReadError
from rag.core.types import Document, Scalar
from retrievers.readers.encoding import clean, decode
from retrievers.readers.sniff import refuse_binary
from retrievers.readers.source import Content

TEXT_COLUMNS = ("text", "content", "contents", "body", "passage", "answer")
TITLE_COLUMNS = ("title", "question", "heading", "headline", "subject", "name")
ID_COLUMNS = ("id", "_id", "doc_id", "key")
_WHOLE = re.compile(r"[+-]?(?:0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"[+-]?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d{1,2})?")


class _Row(NamedTuple):
    number: int
    line: int
    cells: list[str]


class _Table(NamedTuple):
    path: str
    text: str
    delimiter: str
    columns: list[str]


def read_delimited(content: Content) -> Iterator[Document]:
    """Yield one document per row below the header; blank rows have none.

    The text is the first of `TEXT_COLUMNS` that the header names, else (or where that cell is blank) all columns as "name: value"
    lines. The title and the id come from `TITLE_COLUMNS` and `ID_COLUMNS`; a row without an id is known by its number. The other columns
    are metadata, as numbers where a whole column is numeric. Raises `ReadError`, with the line, for a header that is missing or repeats
    a name, a row of another length, an id that is blank or used twice, broken quotes and cells of more than 131,072 characters.
    """
    path = str(content.path)
    refuse_binary(content.data, path)
    table = _table(clean(decode(content.data, path)), path, tsv=content.path.suffix.lower() == ".tsv")
    text, title, identifier = (_chosen(table.columns, names) for names in (TEXT_COLUMNS, TITLE_COLUMNS, ID_COLUMNS))
    title = None if text is None else title  # with all columns in the text, a title taken from one is a guess
    types = _check(table, identifier)
    others = [i for i in range(len(table.columns)) if i not in (text, title, identifier)]
    for row in _rows(table):
        whole = "\n".join(f"{name}: {cell}" for name, cell in zip(table.columns, row.cells, strict=True) if cell)
        yield Document(
            f"{content.id}#{row.cells[identifier] if identifier is not None else row.number}",
            (row.cells[text] if text is not None else "") or whole,
            row.cells[title] if title is not None else content.path.stem,
            content.path.as_posix(),
            "text",
            MappingProxyType({table.columns[i]: types[i](row.cells[i]) if row.cells[i] else None for i in others}),
        )


def _chosen(columns: list[str], names: tuple[str, ...]) -> int | None:
    """The column with the first of ``names`` that occurs, in upper or lower case."""
    lower = [column.lower() for column in columns]
    return next((lower.index(name) for name in names if name in lower), None)


def _table(text: str, path: str, tsv: bool) -> _Table:
    """Find the delimiter (the one that cuts the header into most columns) and check the header."""
    headers = []
    for delimiter in "\t" if tsv else ",;\t|":
        try:
            headers.append((next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), []), delimiter))
        except csv.Error as error:
            raise ReadError(f"{path}: line 1: {error}; check the quotes") from error
    header, delimiter = max(headers, key=lambda found: len(found[0]))
    columns = [name.strip() for name in header]
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if not any(columns) or all(_DECIMAL.fullmatch(name) for name in columns):
        raise ReadError(f"{path}: line 1 must name the columns, but reads {', '.join(columns)[:80]!r}; add a header row")
    if not all(columns):
        raise ReadError(f"{path}: line 1: column {columns.index('') + 1} of the header has no name")
    if twice:
        raise ReadError(f"{path}: line 1: the header names {', '.join(twice)} twice; rename one")
    return _Table(path, text, delimiter, columns)


def _rows(table: _Table) -> Iterator[_Row]:
    reader = csv.reader(io.StringIO(table.text, newline=""), delimiter=table.delimiter, strict=True)
    number, line = 0, 1
    try:
        next(reader)
        for cells in reader:
            line, number = reader.line_num, number + 1
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if len(cells) != len(table.columns):
                expected = f"{len(table.columns)} ({', '.join(table.columns)[:120]})"
                hint = f"quote cells that hold {table.delimiter!r}"
                raise ReadError(f"{table.path}: line {line} has {len(cells)} cells where the header has {expected}; {hint}")
            yield _Row(number, line, cells)
    except csv.Error as error:
        hint = "put long texts into JSON Lines" if "field limit" in str(error) else "check the quotes"
        raise ReadError(f"{table.path}: after line {line}: {error}; {hint}") from error


def _check(table: _Table, identifier: int | None) -> list[Callable[[str], Scalar]]:
    """Go through all rows once, so that no document of a broken file is given; return how to read each column's cells."""
    lines: dict[str, int] = {}
    whole = [True] * len(table.columns)
    decimal = [True] * len(table.columns)
    rows = 0
    for row in _rows(table):
        rows += 1
        for i, cell in enumerate(row.cells):
            if cell and decimal[i]:
                whole[i] = whole[i] and bool(_WHOLE.fullmatch(cell))
                decimal[i] = bool(_DECIMAL.fullmatch(cell))
        if identifier is None:
            continue
        key = row.cells[identifier]
        if not key:
            raise ReadError(f"{table.path}: line {row.line}: the column '{table.columns[identifier]}' is blank; every row needs one")
        if key in lines:
            raise ReadError(f"{table.path}: lines {lines[key]} and {row.line} have the same id {key!r}; every row needs an id of its own")
        lines[key] = row.line
    if not rows:
        raise ReadError(f"{table.path}: has a header but no rows")
    return [int if w and d else float if d else str for w, d in zip(whole, decimal, strict=True)]
