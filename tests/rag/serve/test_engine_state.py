from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from rag.core.errors import ModelUnavailable
from rag.serve.engine_state import Engine, FollowedEngine, tell
from rag.serve.health import Health
from tests.rag.serve.parts import pipeline


@dataclass
class Run:
    state: str
    restarts: int = 0


def told(file: Path, state: str, restarts: int = 0) -> None:
    tell(file, cast("Engine", Run(state, restarts)))


def test_what_is_told_is_followed(tmp_path: Path) -> None:
    followed = FollowedEngine(tmp_path / "engine.json")
    assert (followed.state, followed.restarts) == ("starting", 0)
    told(tmp_path / "engine.json", "restarting", 2)
    assert (followed.state, followed.restarts) == ("restarting", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["engine.json"]


def test_who_waits_hears_of_ready_and_of_the_end(tmp_path: Path) -> None:
    file = tmp_path / "engine.json"

    async def run() -> None:
        waiting = asyncio.create_task(FollowedEngine(file).ready())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        told(file, "ready")
        await asyncio.wait_for(waiting, 5)
        told(file, "failed")
        with pytest.raises(ModelUnavailable, match="has failed"):
            await FollowedEngine(file).ready()

    asyncio.run(run())


def test_health_of_a_worker_follows_a_server_that_is_not_its_own(tmp_path: Path) -> None:
    health = Health({"graft": pipeline()}, FollowedEngine(tmp_path / "engine.json"))

    async def status() -> Any:
        return (await health.check())["status"]

    assert asyncio.run(status()) == "unavailable"
    told(tmp_path / "engine.json", "ready")
    assert asyncio.run(status()) == "ok"
