"""Keeps a vLLM server running for a service: starts it, watches it, starts it anew, and ends it with all its processes."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from generators.models.embedded import resolve
from generators.models.kept_process import KeptProcess, LogFile, fate
from generators.models.patience import Deaths, Patience
from generators.models.server import Flag, check_options, check_possible, command_of, environment_of, needed_of
from rag.core.errors import ConfigError, InputError, ModelUnavailable

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger("graft.engine")

State = Literal["starting", "ready", "restarting", "failed", "stopped"]

_USAGE = 2
"""The status with which vLLM ends when it does not know an option: another start would end the same way."""
_QUIET: Mapping[str, Flag] = {"disable-access-log-for-endpoints": "/health"}


@dataclass(frozen=True)
class _End:
    """How one server ended."""

    reason: str
    healthy: float = 0.0
    """Seconds from when it was ready."""
    final: bool = False
    """There is no use in another start."""


class Supervisor:
    """``async with Supervisor("smollm2") as engine`` runs a vLLM server at ``engine.url`` and starts it anew whenever it dies or hangs.

    ``model``, ``port`` (kept over all starts) and ``adapters`` are those of `serve_vllm`; ``options`` are further flags of the server, with
    underscores or dashes. The server listens on this machine only; ``api_key_env`` names a variable with the key that it asks for (and
    `VLLM` sends). Of the environment it gets what vLLM reads and no keys of the service; ``passes`` names further variables. ``log`` is
    the file for its output, kept in four of about ``log_bytes``; if None, a temporary one that goes with `stop`.

    The constructor raises what can be known before: `MissingDependency` without vLLM; `InputError` for a model, port or option that
    cannot be; `ConfigError` for a port that is taken, a log that cannot be written and a key that is not there.
    """

    def __init__(
        self,
        model: str = "smollm2",
        *,
        port: int | None = None,
        adapters: bool = False,
        options: Mapping[str, Flag] = {},
        log: str | Path | None = None,
        log_bytes: int = 10_000_000,
        api_key_env: str | None = None,
        passes: Collection[str] = (),
        patience: Patience = Patience(),
    ) -> None:
        check_possible(port)
        check_options(options)
        if log_bytes < 1:
            raise InputError(f"log_bytes is at least 1, not {log_bytes!r}")
        path = resolve(model)
        self._key = _key(api_key_env)
        given = needed_of(os.environ) | {name: os.environ[name] for name in passes if name in os.environ}
        self._environment = environment_of(adapters, given) | ({"VLLM_API_KEY": self._key} if self._key else {})
        self._folder = tempfile.TemporaryDirectory(prefix="graft-vllm-") if log is None else None
        file = Path(self._folder.name) / "vllm.log" if self._folder is not None else Path(log or "").expanduser().absolute()
        _check_writable(file)
        self._file = LogFile(file, log_bytes)
        self._place = _reserved(port)
        self.port: int = self._place.getsockname()[1]
        self._command = command_of(path, model, self.port, adapters, {**_QUIET, **{k.replace("_", "-"): v for k, v in options.items()}})
        self._patience = patience
        self._deaths = Deaths(patience)
        self.state: State = "stopped"
        self.restarts = 0
        """How many times the server was started anew."""
        self.reason: str | None = None
        """Why the last server ended; None: none has."""
        self.pid: int | None = None
        """The process group of the server that runs now."""
        self._words: list[str] = []
        self._watchers: list[Callable[[State], None]] = []
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """For `VLLM`, over all starts."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self._file.path

    def watch(self, told: Callable[[State], None]) -> None:
        """Call ``told`` with each new state, on the event loop. It must not block."""
        self._watchers.append(told)

    async def start(self) -> None:
        """Start the server, once, and return; `ready` waits for it."""
        if self._task is not None:
            raise InputError("this supervisor was started before; make another one")
        self._become("starting")
        self._task = asyncio.create_task(self._supervise())

    async def ready(self) -> None:
        """Return when the server is ready. Raises `ModelUnavailable`, with its last words, if it is given up, or stopped."""
        while self.state != "ready":
            if self.state in ("failed", "stopped"):
                words = "\n".join(("; its last words:", *self._words)) if self._words else ""
                raise ModelUnavailable(f"the model server at {self.url} has {self.state}: {self.reason or 'nobody runs it'}{words}")
            await self._changed.wait()

    async def stop(self) -> None:
        """End the server and all its processes, and give its port back."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._place.close()
        if self._folder is not None:
            self._folder.cleanup()
        self._become("stopped")

    async def __aenter__(self) -> Supervisor:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    def _become(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        _log.info("the model server at %s: %s", self.url, state)
        self._changed.set()
        self._changed = asyncio.Event()
        for told in self._watchers:
            try:
                told(state)
            except Exception:
                _log.exception("who watches the model server failed")

    async def _supervise(self) -> None:
        try:
            while (pause := self._after(await self._life())) is not None:
                self._become("restarting")
                await asyncio.sleep(pause)
                self.restarts += 1
        except Exception as error:
            _log.exception("the supervisor of the model server at %s failed", self.url)
            self.reason = f"its supervisor failed: {type(error).__name__}"
        self._become("failed")

    def _after(self, end: _End) -> float | None:
        """Seconds before the next start; None: there is none."""
        self.reason = end.reason
        pause = None if end.final else self._deaths.pause(end.healthy)
        if pause is None:
            _log.error("the model server at %s %s, and is given up: its log is %s", self.url, end.reason, self.log)
        else:
            _log.error("the model server at %s %s, and is started anew in %.1f s", self.url, end.reason, pause)
        return pause

    async def _life(self) -> _End:
        """Run one server to its end."""
        if _answers(self.port):
            return _End(f"cannot start, because another program listens on port {self.port}")
        try:
            process = await KeptProcess.start(self._command, self._environment, self._file, self._patience.term)
        except OSError as error:
            return _End(f"cannot start: {error}")
        self.pid = process.pid
        since: list[float] = []
        ended, hung = asyncio.create_task(process.wait()), asyncio.create_task(self._hung(since))
        try:
            await asyncio.wait({ended, hung}, return_when=asyncio.FIRST_COMPLETED)
            if since:
                self._become("restarting")  # before it has ended: a hung one takes its time
                return _End(fate(ended.result()) if ended.done() else hung.result(), time.monotonic() - since[0])
            await asyncio.to_thread(self._quote)
            if not ended.done():
                return _End(hung.result())
            return _End(f"{fate(ended.result())} before it was ready", final=ended.result() == _USAGE)
        finally:
            ended.cancel()
            hung.cancel()
            await process.end()
            self.pid = None

    async def _hung(self, since: list[float]) -> str:
        """Why the server must be ended, if it does not end by itself. When it was ready is put into ``since``."""
        import httpx

        patience, missed = self._patience, 0
        async with httpx.AsyncClient(trust_env=False, timeout=None) as client:
            until = time.monotonic() + patience.start
            while not await self._healthy(client):
                if time.monotonic() >= until:
                    return f"was not healthy after {patience.start:g} s"
                await asyncio.sleep(min(patience.check, 0.5))
            since.append(time.monotonic())
            self._become("ready")
            while missed < patience.misses:
                await asyncio.sleep(patience.check)
                missed = 0 if await self._healthy(client) else missed + 1
        return f"did not answer /health {missed} times in a row"

    async def _healthy(self, client: httpx.AsyncClient) -> bool:
        import httpx

        try:
            async with asyncio.timeout(self._patience.answer):
                return (await client.get(f"http://127.0.0.1:{self.port}/health")).status_code == 200
        except (httpx.HTTPError, TimeoutError):
            return False

    def _quote(self) -> None:
        """Repeat the server's last words."""
        self._words = [line.replace(self._key, "***") if self._key else line for line in self._file.last_lines()]
        for line in self._words:
            _log.error("| %s", line)


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    if not (key := os.environ.get(name, "").strip()):
        raise ConfigError(f"the environment variable {name}, which should hold the key of the model's server, is not set")
    return key


def _check_writable(log: Path) -> None:
    try:
        os.close(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
    except OSError as error:
        raise ConfigError(
            f"the model server's log cannot be written to {log}: {error.strerror}; name a file in a folder of yours"
        ) from None


def _reserved(port: int | None) -> socket.socket:
    """A socket that holds the port, a free one if None, and does not listen: the server can bind to it too, programs of others cannot."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # vLLM sets the same two
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        place.bind(("127.0.0.1", port or 0))
        if _answers(place.getsockname()[1]):
            raise OSError("another program listens there")
    except OSError as error:
        place.close()
        raise ConfigError(f"port {port} is taken ({error}); stop that program, or give another port, or none to have a free one") from None
    return place


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0
