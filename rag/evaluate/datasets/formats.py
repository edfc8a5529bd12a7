"""The formats that are known: each file of this folder registers its own with `data_format`; there is no list to keep."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

from rag.core.errors import ConfigError, InputError
from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.source import Source

Read = Callable[[Source], Draft]


@dataclass(frozen=True, slots=True)
class Format:
    """How one kind of data set is told apart and read.

    ``files`` says what it is read from; ``fields`` what a record has, for errors; ``general`` formats are asked only when no other fits.
    ``recognises`` looks at the content and must not raise for what another format would read.
    """

    name: str
    what: str
    files: str
    fields: str
    licence: str
    metrics: tuple[str, ...]
    recognises: Callable[[Source], bool]
    read: Read
    general: bool = False


_formats: dict[str, Format] = {}


def data_format(
    name: str,
    *,
    what: str,
    files: str,
    fields: str,
    licence: str,
    metrics: tuple[str, ...],
    recognises: Callable[[Source], bool],
    general: bool = False,
) -> Callable[[Read], Read]:
    """Register the decorated function as the reader of a format. ``licence`` is that of the published set, "" for anybody's own.

    Raises `ConfigError` if another reader has the name.
    """

    def register(read: Read) -> Read:
        known = _formats.get(name)
        if known is not None and (known.read.__module__, known.read.__qualname__) != (read.__module__, read.__qualname__):
            raise ConfigError(f"two data formats are called '{name}': {known.read.__module__} and {read.__module__}; rename one of them")
        _formats[name] = Format(name, what, files, fields, licence, metrics, recognises, read, general)
        return read

    return register


def known_formats() -> list[Format]:
    """Every format, by name."""
    from rag.evaluate import datasets

    for module in pkgutil.iter_modules(datasets.__path__):
        importlib.import_module(f"{datasets.__name__}.{module.name}")
    return sorted(_formats.values(), key=lambda format: format.name)


def named(name: str) -> Format:
    """The format called ``name``. Raises `InputError` that lists the known ones."""
    formats = {format.name: format for format in known_formats()}
    if name not in formats:
        raise InputError(f"there is no data format '{name}'; known are: {', '.join(formats)}")
    return formats[name]


def detected(source: Source) -> Format:
    """The one format that recognises ``source``. Raises `InputError` that says what was tried, or which formats it could be."""
    formats = known_formats()
    for general in (False, True):
        fitting = [format for format in formats if format.general is general and format.recognises(source)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise InputError(f"{source.path}: this could be {' or '.join(f.name for f in fitting)}; name one with format=… (--format)")
    if source.is_folder():
        seen = "it holds " + (", ".join(sorted(p.name for p in source.path.iterdir())[:8]) or "nothing")
        hint = "; name one file of it" if any(p.is_file() for p in source.path.iterdir()) else ""
    elif source.is_zip():
        seen, hint = "an archive", "; unpack it and name the file or folder"
    else:
        seen, hint = f"its first record has {', '.join(map(repr, list(source.first())[:12])) or 'no fields'}", ""
    raise InputError(
        f"{source.path}: no known data format ({seen}). Tried: {', '.join(f.name for f in formats)}."
        f" Your own questions are JSON Lines or CSV with {named('own').fields}{hint}"
    )
