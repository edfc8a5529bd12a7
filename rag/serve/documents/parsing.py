"""Files of strangers are parsed in a process of their own, bound in memory and time, that knows no secret and is believed nothing."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import PurePosixPath

from pydantic import Field, ValidationError

from rag.core.errors import InputError, ReadError
from rag.serve.documents import parser_child as child
from rag.serve.documents.lines import Parsed, check_lines
from rag.serve.documents.spool import Spool, SpoolFile
from rag.serve.openai_types import Strict
from retrievers.readers import SUFFIXES

log = logging.getLogger("graft.serve")

COMMAND = (sys.executable, "-P", "-m", "rag.serve.documents.parser_child")
_KEPT = 4_000
"""Bytes of standard error that are looked at: the last."""
_PASSED_ON = ("PYTHONHOME", "LD_LIBRARY_PATH", "SYSTEMROOT")


@dataclass(frozen=True)
class ParserLimits:
    """What one file may take."""

    seconds: float = 60.0
    cpu_seconds: int = 30
    memory: int = 1_000_000_000
    """Bytes of address space; the parser itself takes some 75 million."""
    output: int = 64_000_000
    """Bytes of the text that a file holds, as JSON."""
    documents: int = 50_000
    """Records of a table."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise InputError(f"{limit.name} must be more than 0, not {getattr(self, limit.name)!r}")


class Parser:
    """Parses files, each in a process that is started for it and gone after it.

    ``command`` starts that process (see `rag.serve.documents.parser_child` for what it reads, writes and exits with).
    """

    def __init__(self, spool: Spool, limits: ParserLimits = ParserLimits(), *, command: Sequence[str] = COMMAND) -> None:
        self._spool = spool
        self._limits = limits
        self._command = tuple(command)

    async def parse(self, id: str, file: SpoolFile) -> Parsed:
        """The documents of ``file``, which was sent under the name ``id``.

        Raises `ReadError` with the reason (without the name) if it cannot be read within the limits, and `OSError` if the disk is full.
        """
        suffix = PurePosixPath(id).suffix
        if suffix and suffix.lower() not in SUFFIXES:
            raise ReadError(f"there is no reader for {suffix} files; readable are {', '.join(SUFFIXES)} and files without a suffix")
        lines = self._spool.create(".jsonl")
        try:
            code, said = await self._run(id, file, lines)
            self._judge(id, code, said)
            lines.close()
            most, longest = self._limits.documents, self._limits.output
            return await asyncio.to_thread(check_lines, id, lines, most=most, longest=longest)
        except BaseException:
            lines.remove()
            raise

    async def _run(self, id: str, file: SpoolFile, lines: SpoolFile) -> tuple[int, bytes]:
        """The exit status of the process, and the end of what it wrote to standard error."""
        limits, pipe = self._limits, asyncio.subprocess.PIPE
        request = {"path": str(file.path), "id": id, "memory": limits.memory, "cpu_seconds": limits.cpu_seconds}
        request |= {"output": limits.output, "seconds": math.ceil(limits.seconds)}
        process = await asyncio.create_subprocess_exec(
            *self._command, stdin=pipe, stdout=lines.fileno(), stderr=pipe, env=_environment(), cwd="/", start_new_session=True
        )
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            async with asyncio.timeout(limits.seconds):
                process.stdin.write(json.dumps(request).encode() + b"\n")
                process.stdin.close()
                said = await _end_of(process.stderr)
                return await process.wait(), said
        except TimeoutError:
            raise ReadError(f"took longer than {limits.seconds:g} seconds to read") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def _judge(self, id: str, code: int, said: bytes) -> None:
        """Raise unless all documents are there."""
        limits = self._limits
        if code == child.DONE:
            return
        if code == child.UNREADABLE:
            raise ReadError(_reason(said))
        if code == child.TOO_LONG:
            raise ReadError(f"holds more than {limits.output:,} bytes of text; split it")
        if code == child.DISK_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if code == -signal.SIGXCPU:
            raise ReadError(f"took more than {limits.cpu_seconds} seconds of computing to read")
        if code == -signal.SIGALRM:
            raise ReadError(f"took longer than {limits.seconds:g} seconds to read")
        log.error("the parser of %r ended with status %s: %r", id, code, said)
        raise ReadError(f"broke its parser, which may take {limits.memory:,} bytes of memory; the server's log has what is known")


class _Refusal(Strict):
    reason: str = Field(max_length=1_000)


def _reason(said: bytes) -> str:
    try:
        return _Refusal.model_validate_json(said.rstrip(b"\n").rpartition(b"\n")[2]).reason
    except ValidationError:
        return "cannot be read; its parser gave no reason"


async def _end_of(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while piece := await stream.read(65_536):
        kept = (kept + piece)[-_KEPT:]
    return kept


def _environment() -> dict[str, str]:
    """What Python needs to start, and nothing else: the server's own environment holds its keys."""
    environment = {"LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUTF8": "1", "OMP_NUM_THREADS": "1"}
    environment |= {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    if path := os.environ.get("PYTHONPATH"):
        environment["PYTHONPATH"] = os.pathsep.join(os.path.abspath(entry) for entry in path.split(os.pathsep) if entry)
    return environment
