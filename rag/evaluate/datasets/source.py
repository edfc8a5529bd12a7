"""A data file (or folder, or rows from a hub) opened once: its text decoded, its JSON, JSON Lines, CSV or TSV parsed and kept."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rag.core.errors import InputError, ReadError
from rag.evaluate.datasets.record import Record, shorten

DELIMITERS = {".csv": ",", ".tsv": "\t"}
_GENERIC = {"train", "dev", "test", "valid", "validation", "data", "questions"}


class Source:
    """What a format reads from. ``rows`` given: records that are in memory already; then ``path`` is only a name."""

    def __init__(self, path: Path, rows: Sequence[Any] | None = None) -> None:
        self.path = path
        self.in_memory = rows is not None
        self._content: Any = rows
        self._parsed = rows is not None
        self._numbers: list[int] = []
        self._format = "data"
        self._expected = "other fields"

    @property
    def name(self) -> str:
        """The file's name without folder and suffix."""
        return self.path.name if self.is_folder() or self.in_memory else self.path.stem

    @property
    def label(self) -> str:
        """What to call the data set: the name, with the folder's before it where the name alone says nothing."""
        generic = not self.in_memory and self.name.lower() in _GENERIC
        return f"{self.path.absolute().parent.name}-{self.name}" if generic else self.name

    def is_folder(self) -> bool:
        return not self.in_memory and self.path.is_dir()

    def is_zip(self) -> bool:
        return not self.in_memory and self.path.suffix.lower() == ".zip"

    def expect(self, format: str, fields: str) -> None:
        """From now on errors name this format and its fields."""
        self._format, self._expected = format, fields

    def content(self) -> Any:
        """The parsed file: one JSON value, or a list of records (JSON Lines, CSV, TSV). Raises `ReadError` or `InputError`."""
        if not self._parsed:
            if self.is_folder() or self.is_zip():
                raise InputError(f"{self.path}: {self._format} is read from a file of records, not from a folder or an archive")
            delimiter = DELIMITERS.get(self.path.suffix.lower())
            text = read_text(self.path)
            if delimiter:
                self._content, self._numbers = parse_table(text, delimiter, str(self.path))
            else:
                self._content = self._json(text)
            self._parsed = True
        return self._content

    def first(self) -> Mapping[str, Any]:
        """To recognise formats by: the first record, or the one object that the file holds; empty for a folder or an archive."""
        if self.is_folder() or self.is_zip():
            return {}
        content = self.content()
        if isinstance(content, (list, tuple)):
            content = content[0] if content else {}
        return content if isinstance(content, Mapping) else {}

    def top(self) -> Record:
        """The one JSON object that the file holds."""
        content = self.content()
        if isinstance(content, list) and len(content) == 1 and self._numbers:
            content = content[0]
        if not isinstance(content, Mapping):
            kind = "a list" if isinstance(content, (list, tuple)) else type(content).__name__
            raise InputError(
                f"{self.path}: {self._format} is one JSON object, this file holds {kind}. It has {self._expected}."
                f" It begins: {shorten(content)}"
            )
        return self.record(content, str(self.path))

    def records(self) -> list[Record]:
        """All records. Raises `InputError` if there is none or if one is not an object."""
        content = self.content()
        rows = [content] if isinstance(content, Mapping) else content
        if not isinstance(rows, (list, tuple)) or not rows:
            raise InputError(f"{self.path}: {self._format} is a list of records with {self._expected}; this file holds {shorten(content)}")
        return [self.record(row, self._where(i)) for i, row in enumerate(rows)]

    def record(self, row: Any, where: str) -> Record:
        """``row`` as a record of this format. Raises `InputError` if it is not an object."""
        if not isinstance(row, Mapping):
            raise InputError(f"{where}: not an object. Format {self._format} expects {self._expected}. The record: {shorten(row)}")
        return Record(row, where, self._format, self._expected)

    def beside(self, *names: str) -> Source | None:
        """The first of these files in the same folder (or in this folder) that exists, with the same expectations."""
        if self.in_memory:
            return None
        folder = self.path if self.is_folder() else self.path.parent
        for name in names:
            if (folder / name).is_file():
                other = Source(folder / name)
                other.expect(self._format, self._expected)
                return other
        return None

    def _where(self, i: int) -> str:
        return f"{self.path}, line {self._numbers[i]}" if self._numbers else f"{self.path}, record {i + 1}"

    def _json(self, text: str) -> Any:
        try:
            return json.loads(text, parse_constant=_no_constant)
        except RecursionError:
            raise InputError(f"{self.path}: nested too deep to be a data set") from None
        except json.JSONDecodeError as error:
            lines = text.split("\n")
            filled = [(n, line) for n, line in enumerate(lines, start=1) if line.strip()]
            if error.msg == "Extra data" and _is_json(filled[0][1]):
                return self._json_lines(filled)
            raise self._broken(error, error.lineno, lines[error.lineno - 1]) from None
        except ValueError as error:
            raise InputError(f"{self.path}: {error}") from None

    def _json_lines(self, lines: list[tuple[int, str]]) -> list[Any]:
        rows = []
        for number, line in lines:
            try:
                rows.append(json.loads(line, parse_constant=_no_constant))
            except json.JSONDecodeError as error:
                raise self._broken(error, number, line) from None
            except (ValueError, RecursionError) as error:
                raise InputError(f"{self.path}, line {number}: {error}") from None
        self._numbers = [number for number, _ in lines]
        return rows

    def _broken(self, error: json.JSONDecodeError, number: int, line: str) -> InputError:
        at_end = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated string")
        reason = "it ends in the middle of a value (truncated?)" if at_end else error.msg
        return InputError(
            f"{self.path}, line {number}, column {error.colno}: neither JSON nor JSON Lines: {reason}. The line: {shorten(line.strip())}"
        )


def parse_table(text: str, delimiter: str, where: str) -> tuple[list[dict[str, str]], list[int]]:
    """The rows of a CSV text by their header, and the line each ends on. Raises `InputError` for a row that does not fit the header."""
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[dict[str, str]] = []
    numbers: list[int] = []
    try:
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{where}, line {reader.line_num}: this row has another number of cells than the header"
                    f" ({', '.join(reader.fieldnames or ())}). The row: {shorten({str(k): v for k, v in row.items()})}"
                )
            rows.append(row)
            numbers.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{where}, line {reader.line_num}: not a table: {error}") from None
    return rows, numbers


def read_text(path: Path) -> str:
    """The text of a UTF-8 file (a byte-order mark is dropped). Raises `ReadError` (missing, another encoding) or `InputError` (empty)."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ReadError(f"{path}: this is UTF-16; data sets are read as UTF-8: save it again as UTF-8") from None
        line = data.count(b"\n", 0, error.start) + 1
        raise ReadError(f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file again as UTF-8") from None
    if not text.strip():
        raise InputError(f"{path}: the file is empty; a data set needs at least one question")
    return text


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is not JSON; write null or leave the field out")
