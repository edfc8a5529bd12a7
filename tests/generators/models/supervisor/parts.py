"""What the tests of the supervisor share: a stand-in for vLLM, and waiting."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx

from generators.models.patience import Patience
from generators.models.supervisor import Supervisor

SCRIPT = Path(__file__).with_name("fake_engine.py")
QUICK = Patience(start=20.0, check=0.05, answer=0.4, term=0.4, pause=0.05, longest_pause=0.1)


class Fake:
    """The stand-in's folder, and supervisors over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.commands: list[tuple[Any, ...]] = []
        """What `command_of` was asked for."""

    def plan(self, *lines: str) -> None:
        (self.folder / "plan").write_text("\n".join(lines))

    def supervisor(self, **options: Any) -> Supervisor:
        return Supervisor("gpt2", **{"patience": QUICK, "log": self.folder / "log", **options})

    def lives(self) -> list[dict[str, Any]]:
        file = self.folder / "lives"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def pids(self) -> list[int]:
        """Of all that was ever started."""
        return [pid for life in self.lives() for pid in (life["pid"], *life["family"])]


def run(work: Coroutine[Any, Any, None], seconds: float = 60.0) -> None:
    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await work

    asyncio.run(limited())


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


async def order(engine: Supervisor, what: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            await client.post(f"http://127.0.0.1:{engine.port}/{what}")
        except httpx.TransportError:
            assert what == "die"
