"""Keeps several workers at one port: starts them, starts anew those that end, and ends all.

uvicorn has a supervisor too. It tells no worker which one it is, pauses before no start, ends everything when one worker cannot start
again, and answers SIGHUP with new processes, with which jobs would be lost.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import socket
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.multiprocess import mark_process_dead

from generators.models.kept_process import fate
from generators.models.patience import Deaths, Patience
from rag.core.errors import ConfigError
from rag.serve.engine_state import tell
from rag.serve.observe.shared import VARIABLE as METRICS
from rag.serve.settings import Worker
from rag.serve.worker import READY, VARIABLE, Seat, engine_file

if TYPE_CHECKING:
    from generators.models.supervisor import Supervisor

log = logging.getLogger("graft.serve")

PATIENCE = Patience(term=45.0, pause=0.5, longest_pause=30.0, deaths=1_000_000, window=600.0, settled=60.0)
"""Nobody is given up: what a worker lacks may come back, and the others serve meanwhile."""

_LONGEST_PATH = 100
"""Of a Unix socket, in bytes; Linux takes 107."""


class Workers:
    """``number`` processes of ``command`` that all accept from ``listening``. The first one starts alone: what is wrong with the command is
    said once. ``engine`` is run by this process, so that it outlives a worker. Raises `ConfigError` for a folder of temporary files whose
    name is too long for a socket."""

    def __init__(
        self,
        command: Sequence[str],
        number: int,
        listening: socket.socket,
        *,
        engine: Supervisor | None = None,
        patience: Patience = PATIENCE,
    ) -> None:
        self._engine = engine
        self._folder = Path(tempfile.mkdtemp(prefix="graft-workers-"))  # 0700
        if len(os.fsencode(Worker(0, number, self._folder).socket)) > _LONGEST_PATH:
            self._folder.rmdir()
            raise ConfigError(f"{self._folder} is too long a name for a folder of sockets; set TMPDIR to a shorter one")
        Worker(0, number, self._folder).metrics.mkdir()
        url = None if engine is None else engine.url
        self._places = [_Place(Worker(n, number, self._folder), command, listening, url, patience) for n in range(number)]

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; 0 then, or the status of a first worker that could not start. SIGHUP is handed on."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        stopped = asyncio.create_task(stop.wait())
        try:
            return await self._serve(stopped)
        finally:
            stopped.cancel()
            await asyncio.gather(*(place.stop() for place in self._places))
            if self._engine is not None:
                await self._engine.stop()
            await asyncio.to_thread(shutil.rmtree, self._folder, True)

    async def _serve(self, stopped: asyncio.Task[bool]) -> int:
        first, *others = self._places
        keeping, ready = first.start(), asyncio.create_task(first.ready.wait())
        await asyncio.wait({keeping, ready, stopped}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if keeping.done():
            return keeping.result()
        if stopped.done():
            return 0
        if self._engine is not None:
            engine, file = self._engine, engine_file(self._folder)
            engine.watch(lambda state: tell(file, engine))
            await engine.start()
        for place in others:
            place.start()
        await stopped
        return 0

    def _reload(self) -> None:
        for place in self._places:
            place.reload()


class _Place:
    """One worker after the other in the same place."""

    def __init__(
        self, worker: Worker, command: Sequence[str], listening: socket.socket, engine_url: str | None, patience: Patience
    ) -> None:
        self._worker = worker
        self._command = command
        self._listening = listening
        self._engine_url = engine_url
        self._patience = patience
        self._deaths = Deaths(patience)
        self._process: Process | None = None
        self._task: asyncio.Task[int] | None = None
        self._serving = False
        self._old = False
        """It was starting when a reload was asked for, and may have read what was there before."""
        self.ready = asyncio.Event()
        """Set once a worker has served here."""

    def start(self) -> asyncio.Task[int]:
        """Keep a worker here. The task ends, with its status, if the very first of all cannot start."""
        self._task = asyncio.create_task(self._keep())
        return self._task

    def reload(self) -> None:
        """Hand SIGHUP on; to one that is only starting, once it listens to it."""
        if self._process is not None and self._process.returncode is None:
            if self._serving:
                self._process.send_signal(signal.SIGHUP)
            else:
                self._old = True

    async def stop(self) -> None:
        """End the worker in its own time, or by SIGKILL when that is over; no other is started."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self._patience.term):
                await process.wait()
        except TimeoutError:
            log.error("worker %d did not end within %g s and is killed", self._worker.number, self._patience.term)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _keep(self) -> int:
        loop, worker = asyncio.get_running_loop(), self._worker
        while True:
            try:
                status, served = await self._life()
            except OSError as error:
                status, served = str(error), 0.0
            if worker.writes and not self.ready.is_set():
                if isinstance(status, str):
                    log.error("no worker can be started: %s", status)
                return status if isinstance(status, int) and status > 0 else 1
            pause = self._deaths.pause(served) or self._patience.longest_pause
            said = f"cannot start: {status}" if isinstance(status, str) else fate(status)
            log.error("worker %d of %d %s, and is started anew in %.1f s", worker.number, worker.of, said, pause)
            await loop.create_task(asyncio.sleep(pause))

    async def _life(self) -> tuple[int | str, float]:
        """Run one process to its end: its status, and the seconds that it served."""
        loop, worker = asyncio.get_running_loop(), self._worker
        ours, theirs = socket.socketpair()
        given = (self._listening.fileno(), theirs.fileno())
        seat = Seat(
            number=worker.number, of=worker.of, folder=str(worker.folder), listening=given[0], line=given[1], engine_url=self._engine_url
        )
        environment = {**os.environ, VARIABLE: seat.model_dump_json(), METRICS: str(worker.metrics)}
        self._serving = self._old = False
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(*self._command, stdin=DEVNULL, env=environment, pass_fds=given)
            ours.setblocking(False)
            since = loop.time()
            with suppress(ConnectionError):
                if await loop.sock_recv(ours, 1) == READY:
                    self._began()
            code = await self._process.wait()
            served = loop.time() - since if self._serving else 0.0
            self._serving = False
            await asyncio.to_thread(mark_process_dead, self._process.pid, str(worker.metrics))
            return code, served
        finally:
            ours.close()

    def _began(self) -> None:
        self._serving = True
        self.ready.set()
        if self._old and self._process is not None:
            self._process.send_signal(signal.SIGHUP)
