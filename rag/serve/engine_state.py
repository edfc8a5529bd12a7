"""A model server that is run by one process, and what the others know of it: a small file, written whole or not at all."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Protocol

from rag.core.errors import ModelUnavailable

_LOOK = 0.5
"""Seconds between two looks while somebody waits for the server."""


class Engine(Protocol):
    """What an application needs of the model server that it runs: `generators.models.supervisor.Supervisor`, or `FollowedEngine`."""

    @property
    def state(self) -> str:
        """ "starting", "ready", "restarting", "failed" or "stopped"."""
        ...

    @property
    def restarts(self) -> int:
        """How many times it was started anew."""
        ...

    async def start(self) -> None:
        """Called when the application starts."""
        ...

    async def ready(self) -> None:
        """Return when it is ready. Raises `ModelUnavailable` if it is given up."""
        ...

    async def stop(self) -> None:
        """Called when the application ends."""
        ...


class FollowedEngine:
    """A server that another process runs, which says in ``file`` how it is (`tell`)."""

    def __init__(self, file: Path) -> None:
        self._file = file

    @property
    def state(self) -> str:
        """As it was told last; "starting" before that."""
        return str(self._told().get("state", "starting"))

    @property
    def restarts(self) -> int:
        """As it was told last."""
        return int(self._told().get("restarts", 0))

    async def start(self) -> None:
        """Nothing: it is not ours."""

    async def ready(self) -> None:
        """Return when it is ready. Raises `ModelUnavailable` if it is given up."""
        while (state := self.state) != "ready":
            if state in ("failed", "stopped"):
                raise ModelUnavailable(f"the model server has {state}; the log has the reason")
            await asyncio.sleep(_LOOK)

    async def stop(self) -> None:
        """Nothing: it is not ours."""

    def _told(self) -> dict[str, Any]:
        try:
            told: dict[str, Any] = json.loads(self._file.read_text("utf-8"))
        except FileNotFoundError:
            return {}
        return told


def tell(file: Path, engine: Engine) -> None:
    """Write how ``engine`` is now."""
    new = file.with_suffix(".new")
    new.write_text(json.dumps({"state": engine.state, "restarts": engine.restarts}), "utf-8")
    os.replace(new, file)
