"""What callers send, on disk under random names until it is in the corpus."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from rag.core.errors import InputError
from rag.serve.errors import RequestError

CAPACITY = 4_000_000_000
"""Bytes that all uploads together may take on disk."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class SpoolFile:
    """One file of a spool: written once, in pieces, then read by its path until it is removed."""

    def __init__(self, path: Path, reserve: Callable[[int], None]) -> None:
        self.path = path
        self.size = 0
        self._reserve = reserve
        self._file = open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")  # noqa: SIM115

    def write(self, data: bytes) -> None:
        """Add bytes. Raises `RequestError` (429) if the spool holds too much already, and `OSError` if the disk is full."""
        self._reserve(len(data))
        self.size += len(data)
        self._file.write(data)

    def close(self) -> None:
        """Nothing more is written. Raises `OSError` if the disk is full."""
        self._file.close()

    def fileno(self) -> int:
        """The open file, for a process that writes into it."""
        return self._file.fileno()

    def remove(self) -> None:
        """Delete the file; its room is free again. Removing it twice is fine."""
        with suppress(OSError):  # what could not be written before is of no use now
            self._file.close()
        self.path.unlink(missing_ok=True)
        self._reserve(-self.size)
        self.size = 0


class Spool:
    """Files in a folder that belongs to this run alone, below ``folder``.

    What runs that are dead left below ``folder`` is deleted now; several live ones may share it. Raises `InputError` if it cannot be
    written.
    """

    def __init__(self, folder: str | Path, *, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise InputError(f"a spool needs room for at least 1 byte, not {capacity}")
        self._capacity = capacity
        self._used = 0
        self._lock = threading.Lock()
        base, name = Path(folder).absolute(), f"run-{uuid.uuid4().hex}"
        self.folder = base / name
        self._alive = FileLock(base / f"{name}.lock", timeout=0, thread_local=False)
        try:
            base.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(base / "spool.lock", timeout=30):  # nobody takes a run for dead that is only about to begin
                _remove_dead(base)
                self._alive.acquire()
                self.folder.mkdir(mode=0o700)
        except (OSError, Timeout) as error:
            raise InputError(f"{base}: uploads cannot be kept here ({error}); name a folder that can be written") from error

    @property
    def used(self) -> int:
        """Bytes that are here now."""
        return self._used

    def create(self, suffix: str = "") -> SpoolFile:
        """A new file; ``suffix`` must come from a list of known ones, never from a caller. Raises `OSError`."""
        return SpoolFile(self.folder / f"{uuid.uuid4().hex}{suffix}", self._reserve)

    def close(self) -> None:
        """Delete all that is here."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._alive.release()
        Path(self._alive.lock_file).unlink(missing_ok=True)

    def _reserve(self, size: int) -> None:
        with self._lock:
            if size > 0 and self._used + size > self._capacity:
                message = f"uploads that wait to be indexed take {self._used:,} bytes, all that is allowed; try again later"
                raise RequestError(429, message, type="rate_limit_error", code="uploads_full", retry_after=30)
            self._used += size


def full_disk(error: BaseException) -> RequestError | None:
    """What the caller is told (507) if ``error`` says that the disk of the uploads is full; None for any other error."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return RequestError(
            507,
            "the server's disk is full: the upload was not kept; make room and send it again",
            type="server_error",
            code="disk_full",
        )
    return None


def _remove_dead(base: Path) -> None:
    for folder in base.glob("run-*"):
        if folder.suffix == ".lock":
            if not folder.with_suffix("").exists():  # of a run that ended between the two
                folder.unlink(missing_ok=True)
            continue
        lock = FileLock(base / f"{folder.name}.lock", timeout=0)
        with suppress(Timeout), lock:
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
