"""What can be evaluated on: the formats that are known, or the data sets found in a folder with their sizes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rag.core.errors import GraftError, ReadError
from rag.evaluate.datasets.draft import Draft, check
from rag.evaluate.datasets.formats import Format, known_formats
from rag.evaluate.datasets.source import Source

_SUFFIXES = {".json", ".jsonl", ".csv", ".tsv", ".zip"}
_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of ``rag eval --list``. ``files`` is what `load` takes; ``size`` is empty for a format, or says why a set cannot be read."""

    name: str
    format: str
    files: str
    size: str
    licence: str
    what: str


def catalogue(folder: str | Path | None = None) -> list[Entry]:
    """The known formats; with ``folder``, the data sets in it (four levels deep), each read whole to tell its size.

    Files that no format recognises are left out; a set that is recognised but broken says so in ``size``. Raises `ReadError` if ``folder``
    is no folder.
    """
    if folder is None:
        return [Entry(f.name, f.name, f.files, "", f.licence, f.what) for f in known_formats()]
    root = Path(folder)
    if not root.is_dir():
        raise ReadError(f"{root}: there is no such folder; give the one that holds data sets")
    return list(_found(root, known_formats(), _DEPTH))


def _found(folder: Path, formats: list[Format], depth: int) -> Iterator[Entry]:
    whole = _recognised(Source(folder), formats)
    if whole is not None:
        yield whole
        return
    for path in sorted(Path(entry.path) for entry in os.scandir(folder) if not entry.is_symlink() and not entry.name.startswith(".")):
        if path.is_dir() and depth > 0:
            yield from _found(path, formats, depth - 1)
        elif path.is_file() and path.suffix.lower() in _SUFFIXES:
            entry = _recognised(Source(path), formats)
            if entry is not None:
                yield entry


def _recognised(source: Source, formats: list[Format]) -> Entry | None:
    try:
        fitting = [f for f in formats if not f.general and f.recognises(source)] or [
            f for f in formats if f.general and f.recognises(source)
        ]
    except GraftError:
        return None
    if not fitting:
        return None
    format = fitting[0]
    source.expect(format.name, format.fields)
    try:
        draft = format.read(source)
        check(draft, str(source.path))
        size = _size(draft)
    except GraftError as error:
        size = f"cannot be read: {error}"
    return Entry(source.label, format.name, str(source.path), size, format.licence, format.what)


def _size(draft: Draft) -> str:
    questions = f"{len(draft.questions):,} question{'s' if len(draft.questions) != 1 else ''}"
    return f"{questions}, {len(draft.passages):,} passage{'s' if len(draft.passages) != 1 else ''}" if draft.passages else questions
