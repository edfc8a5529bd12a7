"""Waiting no longer than one should: until the client has gone, the time is over, or the server stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from rag.serve.errors import RequestError

if TYPE_CHECKING:
    from starlette.requests import Request

T = TypeVar("T")

GONE = 499
"""nginx's status for a client that left; nobody reads it, the access log does."""


class GivenUp(Exception):
    """The reason to stop came before the result. ``error`` is what the client is told; None if there is none any more."""

    def __init__(self, error: RequestError | None = None) -> None:
        super().__init__(str(error or "the client has gone"))
        self.error = error


async def unless(stop: Coroutine[Any, Any, RequestError | None], work: Coroutine[Any, Any, T]) -> T:
    """The result of ``work``; if ``stop`` ends first, ``work`` is cancelled, waited for, and `GivenUp` raised with what ``stop`` gave."""
    task, watch = asyncio.ensure_future(work), asyncio.ensure_future(stop)
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GivenUp(watch.result())
    finally:
        task.cancel()
        watch.cancel()
        await asyncio.gather(task, watch, return_exceptions=True)


async def disconnected(request: Request, seconds: float | None = None) -> RequestError | None:
    """Returns when the client has gone, or with an error to tell it after ``seconds``. Only after the whole body was read."""
    try:
        async with asyncio.timeout(seconds):
            while (await request.receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return late(seconds)
    return None


def late(seconds: float | None) -> RequestError:
    """What a client is told whose answer took longer than its time limit."""
    return RequestError(504, f"the answer was not there within {seconds:g} s", type="server_error", code="timeout")


class Limited:
    """The events of a run until its time is over: at ``end`` (of the loop's clock; None: never), or some seconds after the server stops,
    however often an event comes in between. `GivenUp` then says which of the two it was."""

    def __init__(self, events: AsyncIterator[Any], end: float | None = None, error: RequestError | None = None) -> None:
        self._events = events
        self._end = end
        self._error = error
        self._scope: asyncio.Timeout | None = None
        self.given_up: RequestError | None = None
        """Why no more events came, if that was it."""

    async def next(self) -> Any:
        """The next event."""
        try:
            async with asyncio.timeout_at(self._end) as self._scope:
                return await anext(self._events)
        except TimeoutError:
            if self._scope is not None and self._scope.expired():
                self.given_up = self._error
                raise GivenUp(self._error) from None
            raise
        finally:
            self._scope = None

    async def drain(self, stopping: Callable[[], Awaitable[object]], seconds: float) -> None:
        """Once ``stopping`` returns, there are ``seconds`` left."""
        await stopping()
        end = asyncio.get_running_loop().time() + seconds
        if self._end is None or end < self._end:
            self._end = end
            self._error = RequestError(503, "the server is shutting down", type="server_error", code="shutting_down")
            if self._scope is not None:
                self._scope.reschedule(end)

    async def close(self) -> None:
        """End the run behind the events, if it still goes on."""
        aclose = getattr(self._events, "aclose", None)
        if aclose is not None:
            await aclose()
