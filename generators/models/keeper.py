"""The process between graft and a model server: it starts the server, writes its log, and ends all of it, whatever becomes of graft.

`Supervisor` runs it as ``python -I -S keeper.py PARENT PATIENCE LOG BYTES FILES COMMAND…``, the leader of a process group of its own, with
the standard library alone. When it is told to (SIGTERM), or its parent is gone, the group gets SIGTERM and after PATIENCE seconds SIGKILL.
It ends when nothing of the server is left, with the server's status, or 128 and the number of the signal that ended the server.

The parent's end is seen by asking once a second who the parent is. That also holds for SIGKILL, and hangs neither on the thread that
started this process, as PR_SET_PDEATHSIG does, nor on who else inherited a pipe.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from itertools import pairwise

STARTS = b"--- the engine starts "
"""Begins the line in the log above what one server says."""

_LOOK = 1.0
"""Seconds between two looks at the parent."""
_PIECE = 16_384
_SET_CHILD_SUBREAPER = 36  # of prctl(2)


class Log:
    """A file that becomes FILE.1, FILE.2 … when it holds about ``most`` bytes; ``kept`` of those stay. Only its owner may read it.

    A disk that is full costs what is said meanwhile, and never the server.
    """

    def __init__(self, path: str, most: int, kept: int) -> None:
        self._path = path
        self._most = most
        self._kept = kept
        self._file = -1
        self._size = 0

    def write(self, data: bytes) -> None:
        """Append, and turn to a new file at the end of a line."""
        with suppress(OSError):
            if self._file < 0:
                self._open()
            if self._size + len(data) > self._most:
                head, end, data = data.partition(b"\n")
                self._append(head + end)
                self._turn()
            self._append(data)

    def _append(self, data: bytes) -> None:
        while data:
            written = os.write(self._file, data)
            self._size += written
            data = data[written:]

    def _turn(self) -> None:
        os.close(self._file)
        self._file = -1
        names = [self._path, *(f"{self._path}.{number}" for number in range(1, self._kept + 1))]
        for old, new in reversed(list(pairwise(names))):
            with suppress(FileNotFoundError):
                os.replace(old, new)
        if not self._kept:
            os.truncate(self._path, 0)
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._size = os.fstat(self._file).st_size


class Keeper:
    """Runs one command to its end. ``parent`` is the process without which it must not go on."""

    def __init__(self, parent: int, patience: float, log: Log) -> None:
        self._parent = parent
        self._patience = patience
        self._log = log
        self._asked = False
        self._until: float | None = None
        """When SIGKILL follows; None: nobody wants the server's end."""

    def run(self, command: list[str]) -> int:
        """The status to end with."""
        _adopt_orphans()
        woken, wake = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._ask)  # a handler, which the server does not inherit as it would SIG_IGN
        said, saying = os.pipe()
        os.set_blocking(said, False)
        server = self._start(command, saying)
        os.close(saying)
        sources = [said, woken]
        while (status := _reaped(server)) is None:
            ready, _, _ = select.select(sources, [], [], self._rest())
            if said in ready and not self._copy(said):
                sources.remove(said)  # it closed its output and goes on
            if woken in ready:
                os.read(woken, _PIECE)
            self._end_if_due()
        _end_rest()
        while self._copy(said):
            pass
        self._log.write(f"--- the engine ended with status {status} ---\n".encode())
        return status

    def _ask(self, *_: object) -> None:
        self._asked = True

    def _start(self, command: list[str], output: int) -> int:
        self._log.write(STARTS + time.strftime("%Y-%m-%dT%H:%M:%SZ ---\n", time.gmtime()).encode())
        files = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), *((os.POSIX_SPAWN_DUP2, output, number) for number in (1, 2))]
        # Python ignores these two, and what is ignored would be inherited.
        return os.posix_spawn(command[0], command, os.environ, file_actions=files, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ])

    def _copy(self, source: int) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(source, _PIECE)
        except BlockingIOError:
            return False
        self._log.write(data)
        return bool(data)

    def _rest(self) -> float:
        return _LOOK if self._until is None else min(_LOOK, max(0.0, self._until - time.monotonic()))

    def _end_if_due(self) -> None:
        if self._until is None:
            if self._asked or os.getppid() != self._parent:
                self._until = time.monotonic() + self._patience
                os.killpg(0, signal.SIGTERM)  # this process has a handler for it
        elif time.monotonic() >= self._until:
            _end_children()
            self._until = time.monotonic() + _LOOK


def _adopt_orphans() -> None:
    """What the server leaves behind becomes a child of this process, also what left the group. Only Linux has this."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reaped(server: int) -> int | None:
    """Collect children that have ended; the server's status if it was among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == server:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        if pid == 0:
            return None


def _end_rest() -> None:
    """End what the server left behind, and what those leave."""
    while _end_children():
        with suppress(ChildProcessError):
            os.waitpid(-1, 0)


def _end_children() -> bool:
    """Whether there was one."""
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            children = [int(pid) for pid in file.read().split()]
    except OSError:  # no Linux, or one that does not tell: the whole group, and this process with it
        os.killpg(0, signal.SIGKILL)
        raise
    for pid in children:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return bool(children)


def main(arguments: list[str]) -> int:
    """Run as the module says."""
    parent, patience, log, most, kept, *command = arguments
    return Keeper(int(parent), float(patience), Log(log, int(most), int(kept))).run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
