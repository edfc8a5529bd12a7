"""Files that are wholly there or not at all: written in a temporary folder, flushed to the disk, then renamed.

Every step that a crash can separate goes through a function of this module, so that a test can stop the process at each of them.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rag.core.errors import CorpusError

TEMPORARY = ".tmp-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write(path: Path, data: bytes) -> None:
    """Write ``data`` to a new file."""
    with path.open("wb") as file:
        file.write(data)


def flush(path: Path) -> None:
    """Flush a file or a folder (its list of names) to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(old: Path, new: Path) -> None:
    """Give ``old`` its final name and flush the folder that holds it."""
    os.replace(old, new)
    flush(new.parent)


def publish(temporary: Path, final: Path) -> None:
    """Make a finished folder appear under its final name, its files flushed first. After this it survives a power cut."""
    for file in sorted(temporary.iterdir()):
        flush(file)
    flush(temporary)
    rename(temporary, final)


def remove(folder: Path) -> None:
    """Delete a folder with all that is in it; one that is gone already is fine."""
    shutil.rmtree(folder, ignore_errors=True)


class ArrayFile:
    """A NumPy file written block by block, so that no more than a block is ever held in memory. Use as a context manager."""

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, np.dtype(dtype), shape
        self._rows = 0

    def __enter__(self) -> ArrayFile:
        self._file = self.path.open("wb")
        header = {"descr": self.dtype.str, "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)  # type: ignore[no-untyped-call]
        return self

    def append(self, block: np.ndarray) -> None:
        """Add rows. Raises `OSError` if the disk is full."""
        if len(block):
            self._rows += len(block)
            self._file.write(np.ascontiguousarray(block, dtype=self.dtype).data)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        with self._file:
            self._file.flush()
        if error is None and self._rows != self.shape[0]:
            raise CorpusError(f"{self.path.name}: {self.shape[0]} rows were announced and {self._rows} came")


def write_array(path: Path, array: np.ndarray) -> None:
    """Write a whole array as a NumPy file."""
    with ArrayFile(path, array.dtype.str, array.shape) as file:
        file.append(array)


def sha256(path: Path) -> str:
    """The checksum of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk into a `CorpusError` that says what is left."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CorpusError(_full(path, error)) from error
    except sqlite3.OperationalError as error:
        if "full" not in str(error) and "disk I/O" not in str(error):
            raise
        raise CorpusError(_full(path, error)) from error


def _full(path: Path, error: Exception) -> str:
    return (
        f"{path}: the disk is full or a size limit was reached while writing ({error}); the last committed state is intact: "
        "make room and run the same command again, it goes on where it stopped"
    )


def commit(connection: sqlite3.Connection) -> None:
    """Make the open transaction permanent."""
    connection.execute("COMMIT")
