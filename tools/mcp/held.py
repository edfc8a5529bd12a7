"""Something that must be entered and left by one task, used by many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

T = TypeVar("T")

_GRACE = 8.0
"""Seconds that an end may take: the SDK gives a program six to go."""


class Held(Generic[T]):
    """A context held open by a task of its own, from the first `get` until `forget` or `close`. For one event loop."""

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[T]], timeout: float) -> None:
        self._open = open
        self._timeout = timeout
        self._ready: asyncio.Future[T] | None = None
        self._leave: Callable[[], None] = lambda: None
        self._task: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """What the context gives; everybody who asks meanwhile shares it. Raises what entering it raises, or `TimeoutError`."""
        if self._ready is None or self._task is None or self._task.done():
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._hold(self._ready))
        ready = self._ready
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(ready)
        except Exception:
            if self._ready is ready:
                self._drop()
            raise

    def forget(self, value: T) -> None:
        """Have the context that gave ``value`` left, without waiting; the next `get` opens another."""
        ready = self._ready  # a later one may be open already: several callers notice that a connection is lost
        if ready is not None and ready.done() and ready.exception() is None and ready.result() is value:
            self._drop()

    async def close(self) -> None:
        """Leave the context and wait for it, within bounds."""
        self._drop()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_GRACE)

    def _drop(self) -> None:
        self._leave()
        self._ready = None

    async def _hold(self, ready: asyncio.Future[T]) -> None:
        import anyio

        stop = asyncio.Event()
        with (
            anyio.CancelScope() as entering
        ):  # anyio's own: what is entered cleans up under it, which a task's cancellation would cut short
            self._leave = lambda: stop.set() if ready.done() else entering.cancel()
            try:
                async with self._open() as value:
                    ready.set_result(value)
                    await stop.wait()
            except Exception as error:
                if not ready.done():  # once it is open, whoever uses it meets the error
                    ready.set_exception(error)
