"""Waiting for two things at once: the work, and the reason to give it up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")

GONE = 499
"""nginx's status for a client that left; nobody reads it, the access log does."""


class GivenUp(Exception):
    """The reason to stop came before the result."""


async def unless(stop: Coroutine[Any, Any, object], work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; if ``stop`` ends first, ``work`` is cancelled, waited for, and `GivenUp` raised."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(stop)
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GivenUp
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def disconnected(request: Request) -> None:
    """Returns when the client has gone. Only after the whole body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Drain:
    """The time that running work still has once the server stops: ``seconds`` from when that was first noticed, however often it is
    waited for since."""

    def __init__(self, stopping: Callable[[], Awaitable[object]], seconds: float) -> None:
        self._stopping = stopping
        self._seconds = seconds
        self._end: float | None = None

    async def over(self) -> None:
        """Returns when the time is over."""
        await self._stopping()
        now = asyncio.get_running_loop().time()
        if self._end is None:
            self._end = now + self._seconds
        await asyncio.sleep(self._end - now)
