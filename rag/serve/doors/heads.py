"""The outermost door: how long a connection may take to say what it wants, and how much it may say before that.

An application hears of a request when its head is complete. A head that comes byte by byte, or never ends, is known to the connection
alone, and uvicorn bounds the time of neither and the length only with h11. uvicorn takes it as ``http="rag.serve.doors.heads:Heads"``.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger("graft.serve")

SECONDS = 30.0
"""From the connection, or from the first byte after an answer, until the head of a request is there."""


class Heads(asyncio.Protocol):
    """uvicorn's protocol of a connection, closed if a head takes longer than ``seconds``. Takes what uvicorn gives its own; a head of more
    than ``h11_max_incomplete_event_size`` bytes is answered with 400 by h11, whatever other parsers are installed."""

    seconds = SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        self._inner = H11Protocol(*args, **options)
        self._loop = self._inner.loop
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The clock runs from here, for those too that never say a word."""
        self._inner.connection_made(transport)  # type: ignore[arg-type]
        self._start()

    def data_received(self, data: bytes) -> None:
        """Hand on; whether a request is there now is known after it."""
        self._inner.data_received(data)
        if not self._waits_for_a_head():
            self._stop()
        elif self._late is None:
            self._start()

    def eof_received(self) -> None:
        """Hand on."""
        self._inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Hand on."""
        self._stop()
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """Hand on."""
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Hand on."""
        self._inner.resume_writing()

    def _waits_for_a_head(self) -> bool:
        return self._inner.cycle is None or self._inner.cycle.response_complete

    def _start(self) -> None:
        self._late = self._loop.call_later(self.seconds, self._give_up)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._waits_for_a_head():
            log.info("a connection was closed: no request came within %g seconds", self.seconds)
            self._inner.transport.close()
