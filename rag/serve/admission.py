"""How many questions are answered at once, how many may wait for their turn, and what the others are told."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rag.core.errors import InputError
from rag.serve.errors import RequestError

_LONGEST = 60
"""Seconds that a caller is at most told to stay away."""
_REMEMBERED = 0.2
"""Weight of the newest answer in the mean time of an answer."""


class Admission:
    """A bounded queue: ``running`` questions at once and ``waiting`` behind them, first come first served; further ones get 429.

    For use within one event loop. ``running`` and ``waiting`` are also what a metrics page shows.
    """

    def __init__(self, running: int = 64, waiting: int = 128) -> None:
        if running < 1:
            raise InputError(f"at least 1 question is answered at once, not {running!r}")
        if waiting < 0:
            raise InputError(f"the queue has room for 0 questions or more, not {waiting!r}")
        self._room = running
        self._queue_room = waiting
        self._running = 0
        self._queue: deque[asyncio.Future[None]] = deque()
        self._mean: float | None = None  # seconds of an answer
        self.refused = 0
        """How many were sent away so far."""

    @property
    def running(self) -> int:
        """Questions that are being answered."""
        return self._running

    @property
    def waiting(self) -> int:
        """Questions in the queue."""
        return len(self._queue)

    @asynccontextmanager
    async def turn(self, what: str = "questions") -> AsyncIterator[None]:
        """While this lasts, a place is taken. Raises `RequestError` (429 with ``Retry-After``) if the queue is full; a caller that is
        cancelled while it waits leaves the queue. ``what`` they are called there."""
        await self._enter(what)
        started = time.monotonic()
        try:
            yield
        finally:
            self._learn(time.monotonic() - started)
            self._leave()

    async def _enter(self, what: str) -> None:
        if self._running < self._room and not self._queue:
            self._running += 1
            return
        if len(self._queue) >= self._queue_room:
            self.refused += 1
            seconds = self.retry_after()
            raise RequestError(
                429,
                f"{self._running} {what} are being answered and {len(self._queue)} wait, which is all this server takes;"
                f" try again in {seconds} s",
                type="rate_limit_error",
                code="queue_full",
                retry_after=seconds,
            )
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # its turn had come in the moment in which it left
                self._leave()
            else:
                self._queue.remove(turn)
            raise

    def _leave(self) -> None:
        """The place goes to the first in the queue, so that nobody who comes now takes it before them."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._running -= 1

    def retry_after(self) -> int:
        """Whole seconds until a place in the queue is likely: what those before take at the pace so far, from 1 to 60."""
        mean = 1.0 if self._mean is None else self._mean
        return max(1, min(_LONGEST, math.ceil(mean * (len(self._queue) + 1) / self._room)))

    def _learn(self, seconds: float) -> None:
        self._mean = seconds if self._mean is None else (1 - _REMEMBERED) * self._mean + _REMEMBERED * seconds
