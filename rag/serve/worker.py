"""One of several processes that serve together, seen from the inside; `rag.serve.workers` starts them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn
from pydantic import BaseModel, ConfigDict

from rag.serve.engine_state import FollowedEngine
from rag.serve.settings import Worker

if TYPE_CHECKING:
    from fastapi import FastAPI

VARIABLE = "GRAFT_WORKER"
READY = b"."


class Seat(BaseModel):
    """What a worker is told, in its environment: its place, and the file descriptors that it was given: the socket that all listen on,
    and a line to the process that started it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    number: int
    of: int
    folder: str
    listening: int
    line: int
    engine_url: str | None = None

    @classmethod
    def taken(cls) -> Seat | None:
        """This process's, once: no process that it starts is taken for a worker. None: it is no worker."""
        text = os.environ.pop(VARIABLE, None)
        if text is None:
            return None
        seat = cls.model_validate_json(text)
        for given in (seat.listening, seat.line):
            os.set_inheritable(given, False)
        return seat

    @property
    def worker(self) -> Worker:
        """Its place."""
        return Worker(self.number, self.of, Path(self.folder))

    def engine(self) -> tuple[FollowedEngine, str | None]:
        """The model server, which is not this process's to run, and its address."""
        return FollowedEngine(engine_file(Path(self.folder))), self.engine_url

    def serve(self, app: FastAPI, **options: Any) -> None:
        """Answer until SIGTERM, or until the process that started this one is gone. ``options`` are uvicorn's."""
        server = uvicorn.Server(uvicorn.Config(app, **options))
        sockets = [socket.socket(fileno=self.listening)]
        if self.worker.writes:
            sockets.append(_private(self.worker.socket))
        with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
            runner.run(self._serve(server, sockets))

    async def _serve(self, server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        line = asyncio.create_task(self._line(server))
        try:
            await server.serve(sockets)
        finally:
            line.cancel()

    async def _line(self, server: uvicorn.Server) -> None:
        """Say that it serves, and notice that nobody listens any more."""
        loop = asyncio.get_running_loop()
        with socket.socket(fileno=self.line) as line:
            line.setblocking(False)
            while not server.started:
                await asyncio.sleep(0.02)
            await loop.sock_sendall(line, READY)
            with suppress(ConnectionError):
                await loop.sock_recv(line, 1)
            os.kill(os.getpid(), signal.SIGTERM)


def engine_file(folder: Path) -> Path:
    """Where the workers read how the model server is."""
    return folder / "engine.json"


def _private(path: Path) -> socket.socket:
    """The writer's socket. One that a dead writer left is replaced."""
    path.unlink(missing_ok=True)
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    own.bind(str(path))
    return own
