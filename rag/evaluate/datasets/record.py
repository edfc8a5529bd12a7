"""One record of a file, read field by field; what does not fit is an error that shows the record and the fields expected."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.core.errors import InputError

_SHOWN = 240


@dataclass(frozen=True, slots=True)
class Record:
    """``fields`` as the file has them. ``where`` says which file and record; ``format`` and ``expected`` are for messages only."""

    fields: Mapping[str, Any]
    where: str
    format: str
    expected: str

    def __contains__(self, name: str) -> bool:
        return name in self.fields

    def text(self, *names: str, default: str | None = None) -> str:
        """The first of ``names`` that the record has, as text. Whitespace around it is kept."""
        value = self.value(*names, default=default)
        if not isinstance(value, str):
            raise self.bad(f"{_or(names)} must be text, not {_kind(value)}")
        return self._clean(value, names[0])

    def filled(self, *names: str) -> str:
        """Like `text`, stripped; whitespace alone is an error."""
        value = self.text(*names).strip()
        if not value:
            raise self.bad(f"{_or(names)} is empty")
        return value

    def name(self, *names: str, default: str | None = None) -> str:
        """An identifier: text or a whole number, as text."""
        value = self.value(*names, default=default)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise self.bad(f"{_or(names)} must be an identifier (text or a whole number), not {_kind(value)}")
        return self._clean(str(value).strip(), names[0])

    def texts(self, *names: str, default: Sequence[str] | None = None) -> tuple[str, ...]:
        """A list of texts, stripped, without empty and repeated ones; one text counts as a list of one."""
        value = self.value(*names, default=default)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, (list, tuple)) or not all(isinstance(item, str) for item in values):
            raise self.bad(f"{_or(names)} must be a list of texts, not {_kind(value)}")
        return distinct(self._clean(item, names[0]) for item in values)

    def items(self, name: str, default: Sequence[Any] | None = None) -> list[Any]:
        """A list of anything."""
        value = self.value(name, default=default)
        if not isinstance(value, (list, tuple)):
            raise self.bad(f"'{name}' must be a list, not {_kind(value)}")
        return list(value)

    def records(self, name: str, default: Sequence[Any] | None = None) -> Iterator[Record]:
        """A list of objects."""
        for i, item in enumerate(self.items(name, default)):
            if not isinstance(item, Mapping):
                raise self.bad(f"'{name}[{i}]' must be an object, not {_kind(item)}")
            yield Record(item, f"{self.where}, {name}[{i}]", self.format, self.expected)

    def record(self, *names: str) -> Record:
        """A nested object."""
        value = self.value(*names)
        if not isinstance(value, Mapping):
            raise self.bad(f"{_or(names)} must be an object, not {_kind(value)}")
        return Record(value, f"{self.where}, {names[0]}", self.format, self.expected)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self.value(name, default=default)
        if not isinstance(value, bool):
            raise self.bad(f"'{name}' must be true or false, not {_kind(value)}")
        return value

    def value(self, *names: str, default: Any = None) -> Any:
        """The first of ``names`` that the record has, whatever it is; ``default`` where it has none, an error where that is None."""
        for name in names:
            if self.fields.get(name) is not None:
                return self.fields[name]
        if default is None:
            raise self.bad(f"{_or(names)} is missing")
        return default

    def bad(self, problem: str) -> InputError:
        """The error for this record, to be raised by the caller."""
        return InputError(f"{self.where}: {problem}. Format {self.format} expects {self.expected}. The record: {shorten(self.fields)}")

    def _clean(self, text: str, name: str) -> str:
        if text.isascii():
            return text
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise self.bad(f"'{name}' holds half a surrogate pair, which is no character; repair the file") from None
        return text


def distinct(texts: Iterator[str]) -> tuple[str, ...]:
    """``texts`` stripped, in order, without empty and repeated ones."""
    return tuple(dict.fromkeys(stripped for text in texts if (stripped := text.strip())))


def shorten(value: Any) -> str:
    """``value`` as JSON of at most 240 characters, long texts cut inside so that all field names have a chance to be seen."""
    written = json.dumps(_cut(value, 0), ensure_ascii=False, default=str).encode("utf-8", "replace").decode("utf-8")
    return written if len(written) <= _SHOWN else written[: _SHOWN - 1] + "…"


def _cut(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value if len(value) <= 40 else value[:39] + "…"
    if isinstance(value, Mapping):
        return {str(k)[:40]: _cut(v, depth + 1) for k, v in list(value.items())[:20]} if depth < 3 else "{…}"
    if isinstance(value, (list, tuple)):
        return [_cut(v, depth + 1) for v in value[:2]] + (["…"] if len(value) > 2 else []) if depth < 3 else "[…]"
    return value


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number", type(None): "nothing"}
    name = names.get(type(value), type(value).__name__)
    return "empty" if value in ("", [], {}) and not isinstance(value, (bool, int, float)) else name


def _or(names: tuple[str, ...]) -> str:
    return " or ".join(f"'{name}'" for name in names)
