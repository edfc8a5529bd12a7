"""JSON Lines: one document per line."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, NoReturn

from rag.core.errors import ReadError
from rag.core.types import Document
from retrievers.readers.encoding import clean, decode
from retrievers.readers.metadata import scalar
from retrievers.readers.sniff import refuse_binary
from retrievers.readers.source import Content

_TEXT_FIELDS = ("text", "contents", "content")
_ID_FIELDS = ("id", "_id")
_EXPECTED = (
    'each line must be an object such as {"text": "…", "id": "7", "title": "…", "metadata": {"year": 2024}}; only "text" is required'
)


def read_jsonl(content: Content) -> Iterator[Document]:
    """Yield one document per line; blank lines have none.

    The text is the field ``text`` (or ``contents``, ``content``), the id ``id`` (or ``_id``) or else the line number. The fields of
    ``metadata`` and all further fields become metadata; lists and objects among them are kept as JSON text. Raises `ReadError`, with
    the line and what is expected, for a line that is no such object and for an id used twice.
    """
    path = str(content.path)
    refuse_binary(content.data, path)
    text = clean(decode(content.data, path))
    lines: dict[str, int] = {}
    for number, document in _documents(text, content):  # once through before the first is given, so that a broken file gives none
        if document.id in lines:
            shown = document.id.removeprefix(f"{content.id}#")
            raise ReadError(
                f"{path}: lines {lines[document.id]} and {number} have the same id {shown!r}; every line needs an id of its own"
            )
        lines[document.id] = number
    for _, document in _documents(text, content):
        yield document


def _documents(text: str, content: Content) -> Iterator[tuple[int, Document]]:
    for number, line in enumerate(io.StringIO(text, newline="\n"), 1):
        if line.strip():
            try:
                yield number, _document(line, number, content)
            except (ValueError, RecursionError) as error:
                reason = clean(str(error)) if isinstance(error, ValueError) else "it is nested too deeply"
                raise ReadError(f"{content.path}: line {number}: {reason}; {_EXPECTED}") from error


def _document(line: str, number: int, content: Content) -> Document:
    record = _JSON.decode(line)
    if not isinstance(record, dict):
        raise ValueError(f"it holds {_type(record)}, not an object")
    field = next((name for name in _TEXT_FIELDS if name in record), None)
    if field is None:
        raise ValueError(f"it has no field 'text', only {', '.join(record)[:200] or 'nothing'}")
    text = record.pop(field)
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"'{field}' is {_type(text)}" if not isinstance(text, str) else f"'{field}' is blank")
    key = next((record.pop(name) for name in _ID_FIELDS if name in record), number)
    if isinstance(key, bool) or not isinstance(key, (str, int)) or key == "":
        raise ValueError(f"'id' is {'blank' if key == '' else _type(key)}")
    title = record.pop("title", None) or ""
    if not isinstance(title, str):
        raise ValueError(f"'title' is {_type(title)}")
    metadata = record.pop("metadata", None) or {}
    if not isinstance(metadata, dict):
        raise ValueError(f"'metadata' is {_type(metadata)}")
    values = {clean(name): scalar(value) for name, value in {**record, **metadata}.items()}
    name = f"{content.id}#{clean(str(key))}"
    return Document(name, clean(text), clean(title) or content.path.stem, content.path.as_posix(), "text", MappingProxyType(values))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON; write null")


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "true or false", int: "a number", float: "a number"}
    return names.get(type(value), "null")
