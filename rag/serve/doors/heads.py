"""The outermost door: how long a connection may take to say what it wants, and how much it may say before that.

An application hears of a request when its head is complete. A head that comes byte by byte, or never ends, is known to the connection
alone, and uvicorn bounds the time of none and the length only where it parses with h11. uvicorn takes this as
``http="rag.serve.doors.heads:Heads"``.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from rag.serve.errors import RequestError

log = logging.getLogger("graft.serve")

SECONDS = 30.0
"""From the connection, or from the first byte after an answer, until the head of a request is there."""
_MOST = 65_536
_END = b"\r\n\r\n"


class Heads(asyncio.Protocol):
    """uvicorn's protocol of a connection, with whichever parser is installed, closed if a head takes longer than ``seconds``. Takes what
    uvicorn gives its own; a head of more than ``h11_max_incomplete_event_size`` bytes is answered with 431."""

    seconds = SECONDS

    def __init__(self, *args: Any, **options: Any) -> None:
        self._inner = cast(Any, AutoHTTPProtocol)(*args, **options)
        self._most: int = self._inner.config.h11_max_incomplete_event_size or _MOST
        self._heard = 0
        self._tail = b""
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The clock runs from here, for those too that never say a word."""
        self._inner.connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        """Hand on; whether a request is there now is known after it."""
        if self._inner.transport.is_closing():
            return
        if self._is_too_long(data):
            self._refuse()
            return
        before = self._inner.cycle
        self._inner.data_received(data)
        if self._inner.cycle is not before:
            self._heard, self._tail = 0, b""
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

    def _is_too_long(self, data: bytes) -> bool:
        """Counts what belongs to a head: what comes first, and what comes behind a whole request, its answer sent or not."""
        if self._inner.cycle is not None and self._inner.cycle.more_body:
            return False
        end = (self._tail + data).find(_END)
        self._heard += len(data) if end < 0 else end - len(self._tail)
        self._tail = data[-len(_END) + 1 :]
        return self._heard > self._most

    def _refuse(self) -> None:
        self._stop()
        log.info("a connection was closed: the head of a request has more than %d bytes", self._most)
        if self._waits_for_a_head():
            message = f"the head of a request has at most {self._most:,} bytes here, the address and all headers together"
            body = json.dumps(RequestError(431, message, code="head_too_large").body()).encode()
            start = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: application/json\r\nConnection: close\r\n"
            self._inner.transport.write(start + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        self._inner.transport.close()

    def _start(self) -> None:
        self._late = self._inner.loop.call_later(self.seconds, self._give_up)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if self._waits_for_a_head():
            log.info("a connection was closed: no request came within %g seconds", self.seconds)
            self._inner.transport.close()
