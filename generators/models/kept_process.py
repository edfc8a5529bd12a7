"""A model server with its keeper, from start to end; see `generators.models.keeper` for what that does."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from generators.models import keeper
from generators.models.child import tail

_SLACK = 10.0
"""Seconds after SIGKILL in which the kernel may tidy up."""
_LINES = 20


@dataclass(frozen=True)
class LogFile:
    """Where the output of a server goes: at most about ``most`` bytes, before which ``kept`` older files of that size are there."""

    path: Path
    most: int
    kept: int = 3

    def last_lines(self) -> list[str]:
        """What the last server said, at most its last 20 lines."""
        try:
            with self.path.open("rb") as file:
                text = tail(file)
        except OSError as error:
            return [f"(the log cannot be read: {error})"]
        said = text.rpartition(keeper.STARTS.decode())[2].splitlines()[1:]  # the first is the rest of that line, or of a torn one
        return said[-_LINES:]


class KeptProcess:
    """``term``: seconds from SIGTERM to SIGKILL."""

    def __init__(self, process: asyncio.subprocess.Process, term: float) -> None:
        self._process = process
        self._term = term
        self.pid = process.pid
        """Of the keeper; all of the server is in its process group, or among what descends from it."""

    @classmethod
    async def start(cls, command: Sequence[str], environment: Mapping[str, str], log: LogFile, term: float) -> KeptProcess:
        """Raises `OSError` where the machine has no memory or processes left. When it is cancelled, nothing of the server is left."""
        settings = (os.getpid(), term, log.path, log.most, log.kept)
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", keeper.__file__, *map(str, settings), *command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        )
        try:
            return cls(await asyncio.shield(starting), term)
        except asyncio.CancelledError:  # asyncio itself would end the keeper by SIGKILL, and what that has started would go on
            await cls(await starting, term).end()
            raise

    async def wait(self) -> int:
        """The status of the server, as a shell tells it, once nothing of it is left."""
        return await self._process.wait()

    async def end(self) -> None:
        """End the server through its keeper, and its group by hand where somebody ended the keeper."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._term + _SLACK):
                    await self._process.wait()
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(_SLACK):
                await self._process.wait()


def fate(status: int) -> str:
    """What a status means, in words."""
    number = status - 128 if status > 128 else -status
    if number > 0:
        with suppress(ValueError):
            name = signal.Signals(number).name
            return f"was ended by {name}" + (" (the kernel's, if memory ran out)" if name == "SIGKILL" else "")
    return f"ended with status {status}"
