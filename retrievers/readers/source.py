"""Files on disk: which there are, what they are called in a corpus, and their bytes, with every check that comes before parsing."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rag.core.errors import InputError, ReadError

MAX_BYTES = 200_000_000
_SKIPPED_FOLDERS = frozenset({"CVS", "_darcs", "__pycache__", "node_modules"})  # the other version-control folders are hidden


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file found on disk, not yet read. ``id`` is its path below ``root`` with "/" between the parts."""

    path: Path
    root: Path
    id: str


@dataclass(frozen=True, slots=True)
class Content:
    """The bytes of a file, ready for a format's parser."""

    path: Path
    id: str
    data: bytes


def list_files(paths: str | Path | Iterable[str | Path], include: Sequence[str] = ()) -> list[SourceFile]:
    """Return every file in ``paths`` (files and folders), sorted by id and without reading any.

    Below a folder, hidden files and folders, version-control folders, ``__pycache__`` and ``node_modules`` are left out and links to
    folders are not followed; every other file is listed, also one that no reader can read, so that reading it says why. ``include``
    keeps only files whose name (or, for a pattern with "/", whose id) matches one of the shell patterns. Raises `ReadError` if a path
    does not exist and `InputError` if two files would have the same id.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    found: dict[str, SourceFile] = {}
    for given in map(Path, paths):
        if not os.path.lexists(given):
            raise ReadError(f"{given}: there is no such file or folder")
        files = _below(given) if given.is_dir() else [_source(given, given.parent)]
        for file in files:
            if include and not any(fnmatchcase(file.id if "/" in pattern else file.path.name, pattern) for pattern in include):
                continue
            other = found.setdefault(file.id, file)
            if other.path.absolute() != file.path.absolute():
                raise InputError(f"{other.path} and {file.path} would both be called '{file.id}'; name a folder that holds both instead")
    return [found[key] for key in sorted(found)]


def load(path: str | Path, root: str | Path | None = None, max_bytes: int = MAX_BYTES) -> Content:
    """Read the bytes of one file below ``root`` (its folder if None).

    Raises `ReadError` if it is missing, empty, larger than ``max_bytes``, not a regular file, outside ``root`` (by "..", or a link), or
    has a name that is not Unicode.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    name = _id(path, root)
    try:
        inside = path.resolve(strict=True).is_relative_to(root.resolve(strict=True))
        if not inside:
            raise ReadError(f"{path}: leads out of the folder {root}; copy the file into it")
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ReadError(f"{path}: is not a regular file")
            data = file.read(max_bytes + 1)
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, ReadError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ReadError(f"{path}: cannot be opened ({reason[:1].lower()}{reason[1:]})") from error
    if len(data) > max_bytes:
        size = max(status.st_size, max_bytes + 1)
        raise ReadError(f"{path}: has {size:,} bytes, more than the limit of {max_bytes:,}; split it or raise the limit")
    if not data.strip():
        raise ReadError(f"{path}: is empty")
    return Content(path, name, data)


def shown(path: Path) -> str:
    """``path`` for a message: bytes of a name that are not UTF-8 are written as escapes, so that the message can be printed and logged."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a named pipe would wait for its writer for ever


def _below(root: Path) -> list[SourceFile]:
    found: list[SourceFile] = []
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=unreadable.append):
        linked = [name for name in folders if Path(folder, name).is_symlink()]
        folders[:] = sorted(name for name in folders if not _left_out(name) and name not in linked)
        found.extend(_source(Path(folder, name), root) for name in [*files, *linked] if not _left_out(name))
    found.extend(_source(Path(error.filename), root) for error in unreadable)
    return found


def _left_out(name: str) -> bool:
    return name.startswith(".") or name in _SKIPPED_FOLDERS


def _source(path: Path, root: Path) -> SourceFile:
    try:
        return SourceFile(path, root, _id(path, root))
    except ReadError:  # told when it is read
        return SourceFile(path, root, os.fsencode(path).decode("utf-8", "replace"))


def _id(path: Path, root: Path) -> str:
    absolute, base = Path(os.path.abspath(path)), Path(os.path.abspath(root))
    if not absolute.is_relative_to(base):
        raise ReadError(f"{path}: is outside the folder {root}")
    name = unicodedata.normalize("NFC", absolute.relative_to(base).as_posix())  # macOS spells "é" with two code points
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ReadError(f"{shown(path)}: has a name that is not Unicode; rename it") from None
    return name
