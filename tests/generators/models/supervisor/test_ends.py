"""Nothing of a server is left, however it or its supervisor ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.generators.models.processes import alive, ended, there
from tests.generators.models.supervisor.parts import QUICK, SCRIPT, Fake, order, run, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


@pytest.mark.parametrize("state", ["starting", "ready", "hung", "pausing", "failed"])
def test_it_stops_in_every_state(fake: Fake, state: str) -> None:
    plan = {
        "starting": "deaf stubborn family",
        "ready": "stubborn family",
        "hung": "stubborn family",
        "pausing": "exit=3",
        "failed": "exit=2",
    }
    fake.plan(plan[state])
    patience = replace(QUICK, pause=60.0, longest_pause=60.0) if state == "pausing" else QUICK

    async def work() -> None:
        engine = fake.supervisor(patience=patience)
        await engine.start()
        if state in ("ready", "hung"):
            await engine.ready()
            if state == "hung":
                await order(engine, "hang")
        elif state == "starting":
            await until(lambda: len(fake.lives()) == 1)
        else:
            await until(lambda: engine.state == {"pausing": "restarting", "failed": "failed"}[state])
        keeper = engine.pid
        began = time.monotonic()
        await engine.stop()
        assert time.monotonic() - began < 5.0
        assert (engine.state, engine.pid) == ("stopped", None)
        assert fake.pids()
        assert not any(there(pid) for pid in (*fake.pids(), keeper or 2**22 + 1))

    run(work())


def test_a_stop_at_once_leaves_nothing(fake: Fake) -> None:
    async def work() -> None:
        for pause in (0.0, 0.0, 0.02, 0.05):
            engine = fake.supervisor()
            await engine.start()
            await asyncio.sleep(pause)
            await engine.stop()

    run(work())
    assert ended(fake.pids(), 0.0)


def test_a_stop_while_the_keeper_starts_leaves_nothing(fake: Fake) -> None:
    async def work() -> None:
        engine = fake.supervisor()
        await engine.start()
        for _ in range(2):  # its life begins; the keeper is forked, and asyncio has not told of it yet
            await asyncio.sleep(0)
        began = time.monotonic()
        while not fake.lives() and time.monotonic() - began < 20.0:
            time.sleep(0.05)  # the loop stands still, as on a busy machine; the keeper does not
        assert fake.lives()
        await engine.stop()

    run(work())
    assert ended(fake.pids(), 0.0)


def test_the_keeper_may_be_killed_too(fake: Fake) -> None:
    async def work() -> None:
        async with fake.supervisor() as engine:
            await engine.ready()
            os.kill(engine.pid or 0, signal.SIGKILL)
            await until(lambda: engine.restarts == 1)
            await engine.ready()
            assert not alive(fake.pids()[0])

    run(work())


PARENT = """
import asyncio, sys
from generators.models import supervisor as module
module.check_possible = lambda port: None
module.command_of = lambda path, name, port, *rest: [sys.executable, "-I", sys.argv[1], str(port), sys.argv[2]]
async def main():
    async with module.Supervisor("gpt2", patience=module.Patience(term=0.5)) as engine:
        await engine.ready()
        print(engine.pid, engine.log, flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_parent_leaves_nothing(fake: Fake, kind: signal.Signals) -> None:
    fake.plan("stubborn family")
    command = [sys.executable, "-c", PARENT, str(SCRIPT), str(fake.folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[4]) as parent:
        assert parent.stdout is not None
        pid, log = parent.stdout.readline().decode().split()
        pids = [int(pid), *fake.pids()]
        assert len(pids) == 4
        assert all(alive(pid) for pid in pids)
        parent.send_signal(kind)
    assert ended(pids)
    Path(log).unlink()
    Path(log).parent.rmdir()
