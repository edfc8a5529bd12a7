"""The leader, with workers that are small scripts; `tests/rag/cli/test_serve_workers.py` has real ones."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from generators.models.patience import Patience
from rag.core.errors import ConfigError
from rag.serve.worker import VARIABLE, Seat
from rag.serve.workers import Workers

if TYPE_CHECKING:
    from generators.models.supervisor import Supervisor

SCRIPT = """
import os, signal, socket, sys, time
from rag.serve.worker import READY, Seat
seat = Seat.taken()
line = socket.socket(fileno=seat.line)
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
def said(what): os.write(log, f"{seat.number} {what}\\n".encode())
"""
SERVE = (
    SCRIPT
    + """
signal.signal(signal.SIGHUP, lambda *_: said("hup"))
signal.signal(signal.SIGTERM, lambda *_: (said("term"), sys.exit(0)))
said(f"ready {os.getpid()}")
line.send(READY)
while True: time.sleep(60)
"""
)
QUICK = Patience(term=1.0, pause=0.05, longest_pause=0.1, deaths=1_000_000, window=600.0, settled=60.0)


class Engine:
    """A model server that is ready as soon as it is started. ``seen``: what workers had said at its start and at its end."""

    url, state, restarts = "http://127.0.0.1:7/v1", "starting", 0

    def __init__(self, log: Path) -> None:
        self._log = log
        self.seen: list[list[str]] = []

    def watch(self, told: Callable[[str], None]) -> None:
        self._told = told

    async def start(self) -> None:
        self.seen.append(self._log.read_text().splitlines())
        self.state = "ready"
        self._told(self.state)

    async def stop(self) -> None:
        self.seen.append(self._log.read_text().splitlines())


class Led:
    """Workers of a script, and what they wrote."""

    def __init__(self, script: str, folder: Path, number: int = 2, engine: Engine | None = None) -> None:
        self.log = folder / "log"
        self.log.touch()
        self.listening = socket.create_server(("127.0.0.1", 0))
        command = [sys.executable, "-c", script, str(self.log)]
        given = cast("Supervisor | None", engine)
        self.workers = Workers(command, number, self.listening, engine=given, patience=QUICK)

    def said(self) -> list[str]:
        return self.log.read_text().splitlines()

    async def until(self, count: int, what: str) -> None:
        async with asyncio.timeout(60):
            while sum(what in line for line in self.said()) < count:
                await asyncio.sleep(0.02)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files whose name leaves room for that of a socket; ``tmp_path`` must be there before."""
    with tempfile.TemporaryDirectory(prefix="g-", dir="/tmp") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def test_all_are_kept_told_and_ended(tmp_path: Path, short: Path, caplog: pytest.LogCaptureFixture) -> None:
    led = Led(SERVE, tmp_path)

    async def run() -> int:
        task = asyncio.create_task(led.workers.run())
        await led.until(2, "ready")
        os.kill(os.getpid(), signal.SIGHUP)
        await led.until(2, "hup")
        os.kill(int(next(line for line in led.said() if line.startswith("1 ready")).split()[2]), signal.SIGKILL)
        await led.until(3, "ready")
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(task, 10)

    assert asyncio.run(run()) == 0
    said = led.said()
    assert sorted(line for line in said if "ready" not in line) == ["0 hup", "0 term", "1 hup", "1 term"]
    assert said[0].startswith("0 ready")  # the first starts alone
    assert "worker 1 of 2 was ended by SIGKILL" in caplog.text
    assert list(short.iterdir()) == []


def test_a_worker_that_does_not_end_is_killed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    led = Led(SERVE.replace("sys.exit(0)", "None"), tmp_path, 1)

    async def run() -> int:
        task = asyncio.create_task(led.workers.run())
        await led.until(1, "ready")
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(task, 10)

    assert asyncio.run(run()) == 0
    assert "worker 0 did not end within 1 s and is killed" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(int(led.said()[0].split()[2]), 0)


def test_a_first_worker_that_cannot_start_ends_all_and_a_later_one_does_not(tmp_path: Path) -> None:
    led = Led(SCRIPT + "said('tried'); sys.exit(3)", tmp_path)
    assert asyncio.run(led.workers.run()) == 3
    assert led.said() == ["0 tried"]
    led = Led(SERVE.replace("line.send", "sys.exit(3) if seat.number and len(open(sys.argv[1]).readlines()) < 5 else line.send"), tmp_path)
    led.log.write_text("")

    async def run() -> int:
        task = asyncio.create_task(led.workers.run())
        await led.until(4, "1 ready")
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(task, 10)

    assert asyncio.run(run()) == 0


def test_a_reload_while_a_worker_starts_is_handed_on_when_it_listens(tmp_path: Path) -> None:
    led = Led(SERVE.replace('said(f"ready {os.getpid()}")', 'said("here"); time.sleep(0.5)'), tmp_path, 1)

    async def run() -> int:
        task = asyncio.create_task(led.workers.run())
        await led.until(1, "here")
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0.1)
        assert led.said() == ["0 here"]
        await led.until(1, "hup")
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(task, 10)

    assert asyncio.run(run()) == 0


def test_the_model_server_is_the_leaders_and_all_hear_of_it(tmp_path: Path) -> None:
    tells = 'time.sleep(0.3); engine, url = seat.engine(); said(f"engine {url} {engine.state}")\nwhile True'
    engine = Engine(tmp_path / "log")
    led = Led(SERVE.replace("while True", tells), tmp_path, engine=engine)

    async def run() -> int:
        task = asyncio.create_task(led.workers.run())
        await led.until(2, "engine http://127.0.0.1:7/v1 ready")
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(task, 10)

    assert asyncio.run(run()) == 0
    assert [line.split()[:2] for line in engine.seen[0]] == [["0", "ready"]]  # only when there is something to run it for
    assert {"0 term", "1 term"} <= set(engine.seen[1])  # the last one out


def test_a_folder_with_too_long_a_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with pytest.raises(ConfigError, match="TMPDIR"):
        Led(SERVE, tmp_path)
    assert list(long.iterdir()) == []


def test_a_seat_is_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        seat = Seat(number=1, of=2, folder="/tmp/x", listening=ours.fileno(), line=theirs.fileno())
        os.set_inheritable(theirs.fileno(), True)
        monkeypatch.setenv(VARIABLE, seat.model_dump_json())
        assert Seat.taken() == seat
        assert Seat.taken() is None
        assert not os.get_inheritable(theirs.fileno())
