"""A server that dies, hangs or never comes up, with a stand-in for vLLM (fake_engine.py); tests/vllm has the real one."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from generators.models.supervisor import Supervisor
from rag.core.errors import InputError, ModelUnavailable
from tests.generators.models.processes import alive, ended, there
from tests.generators.models.supervisor.parts import QUICK, Fake, order, run, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def test_it_starts_without_blocking_and_stops_whole(fake: Fake) -> None:
    fake.plan("slow=0.4 family")

    async def work() -> None:
        engine = fake.supervisor()
        seen: list[str] = []
        engine.watch(seen.append)
        assert (engine.state, engine.pid, engine.restarts) == ("stopped", None, 0)
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.01)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await engine.start()
        assert (engine.state, seen) == ("starting", ["starting"])
        await engine.ready()
        assert ticks > 10
        ticking.cancel()
        assert engine.url == f"http://127.0.0.1:{engine.port}/v1"
        pids = [engine.pid or 0, *fake.pids()]
        assert len(pids) == 4
        assert all(alive(pid) for pid in pids)
        await engine.stop()
        assert not any(there(pid) for pid in pids)  # not as zombies either
        assert (engine.state, engine.pid, engine.reason, seen) == ("stopped", None, None, ["starting", "ready", "stopped"])
        with pytest.raises(ModelUnavailable, match="stopped"):
            await engine.ready()
        with pytest.raises(InputError, match="make another"):
            await engine.start()

    run(work())


def test_a_server_that_dies_is_started_anew_at_the_same_port(fake: Fake) -> None:
    fake.plan("family", "alone family", "family")  # "alone" binds without SO_REUSEPORT

    async def work() -> None:
        async with fake.supervisor() as engine:
            seen: list[str] = []
            engine.watch(seen.append)
            port = engine.port
            for times in (1, 2):
                await engine.ready()
                before = [pid for pid in fake.pids() if alive(pid)]
                assert len(before) == 3
                await order(engine, "die")
                await until(lambda: engine.state != "ready")
                assert engine.state == "restarting"
                await engine.ready()
                assert fake.lives()[-1]["earlier"] == []  # nothing held the GPU when this one started
                assert (engine.restarts, engine.port) == (times, port)
                assert "SIGKILL" in (engine.reason or "")
            assert seen == ["ready", "restarting", "ready", "restarting", "ready"]
            assert len(fake.lives()) == 3
        assert not any(there(pid) for pid in fake.pids())

    run(work())


def test_uvicorns_other_event_loop_will_do(fake: Fake) -> None:
    uvloop = pytest.importorskip("uvloop")
    fake.plan("family")

    async def work() -> None:
        async with asyncio.timeout(60), fake.supervisor() as engine:
            await engine.ready()
            await order(engine, "die")
            await until(lambda: engine.restarts == 1)
            await engine.ready()
        assert len(fake.pids()) == 6
        assert not any(there(pid) for pid in fake.pids())

    uvloop.run(work())


def test_a_hung_server_is_killed(fake: Fake) -> None:
    fake.plan("stubborn", "ok")

    async def work() -> None:
        async with fake.supervisor() as engine:
            await engine.ready()
            await order(engine, "hang")
            await until(lambda: engine.state == "restarting")
            assert alive(fake.pids()[0])  # it is said before it has ended
            await until(lambda: engine.reason is not None)
            assert engine.reason == "did not answer /health 3 times in a row"
            assert not alive(fake.pids()[0])
            await engine.ready()
            assert engine.restarts == 1

    run(work())


def test_one_miss_is_no_death(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[bool] = []
    real = Supervisor._healthy

    async def healthy(self: Supervisor, client: httpx.AsyncClient) -> bool:
        answers.append(await real(self, client) and len(answers) % 3 == 2)  # two misses, then an answer
        return answers[-1]

    monkeypatch.setattr(Supervisor, "_healthy", healthy)

    async def work() -> None:
        async with fake.supervisor() as engine:
            await engine.ready()
            await until(lambda: len(answers) > 20)
            assert (engine.state, engine.restarts) == ("ready", 0)

    run(work())


LAST = r"has failed: ended with status 3 before it was ready; its last words:\nthe engine is born\nout of everything\n--- the engine ended"


def test_it_gives_up_and_says_what_the_server_said(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.plan("exit=3")

    async def work() -> None:
        async with fake.supervisor(patience=replace(QUICK, deaths=3)) as engine:
            with caplog.at_level(logging.INFO, "graft.engine"), pytest.raises(ModelUnavailable, match=LAST):
                await engine.ready()
            assert (engine.state, engine.restarts, len(fake.lives())) == ("failed", 2, 3)
            await asyncio.sleep(0.3)
            assert len(fake.lives()) == 3  # no further start

    run(work())
    assert caplog.text.count("| out of everything") == 3
    assert caplog.text.count("| the engine is born") == 3  # what earlier ones said is not said again
    assert f"is given up: its log is {fake.folder / 'log'}" in caplog.text
    assert caplog.text.count("is started anew in") == 2


def test_a_healthy_time_resets_the_count(fake: Fake) -> None:
    async def work() -> None:
        async with fake.supervisor(patience=replace(QUICK, deaths=2, settled=0.01)) as engine:
            for _ in range(3):
                await engine.ready()
                await asyncio.sleep(0.02)
                await order(engine, "die")
                await until(lambda: engine.state != "ready")
            await engine.ready()
            assert engine.restarts == 3

    run(work())


def test_wrong_options_are_not_tried_again(fake: Fake) -> None:
    fake.plan("exit=2")

    async def work() -> None:
        async with fake.supervisor() as engine:
            with pytest.raises(ModelUnavailable, match="failed: ended with status 2"):
                await engine.ready()
            assert len(fake.lives()) == 1

    run(work())


def test_a_server_that_never_listens(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    fake.plan("deaf", "ok")

    async def work() -> None:
        async with fake.supervisor(patience=replace(QUICK, start=0.5)) as engine:
            await until(lambda: engine.state == "restarting")
            assert engine.reason == "was not healthy after 0.5 s"
            assert not alive(fake.pids()[0])

    run(work())
    assert "| the engine is born" in caplog.text


def test_a_failing_watcher_stops_nothing(fake: Fake, caplog: pytest.LogCaptureFixture) -> None:
    def told(state: str) -> None:
        raise RuntimeError("no time")

    async def work() -> None:
        engine = fake.supervisor()
        engine.watch(told)  # type: ignore[arg-type]
        async with engine:
            await engine.ready()

    run(work())
    assert caplog.text.count("RuntimeError: no time") == 3


def test_an_error_of_its_own_is_a_failure_not_a_silence(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(self: Supervisor, client: httpx.AsyncClient) -> bool:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(Supervisor, "_healthy", broken)

    async def work() -> None:
        async with fake.supervisor() as engine:
            with pytest.raises(ModelUnavailable, match="its supervisor failed: RuntimeError"):
                await engine.ready()
            assert engine.pid is None

    run(work())
    assert ended(fake.pids(), 0.0)
