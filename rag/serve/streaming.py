"""Answers as server-sent events. A token passes here for every caller that listens, so there is little in its way: on two cores beside a
model server, what a token costs here is what the model server lacks.

Source: the HTML Standard, server-sent events, https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, suppress
from typing import TYPE_CHECKING

from fastapi.responses import Response
from sse_starlette.sse import AppStatus

from rag.serve.waiting import GivenUp, unless

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from rag.serve.observe.recorder import Recorder
    from rag.serve.waiting import Limited

QUIET_SECONDS = 15.0
"""After so long without an event a comment is sent, lest a proxy takes the connection for dead."""
_LOOK_SECONDS = 0.25

Event = str | Mapping[str, str]
"""The data of an event, in one line, or its fields."""


class Stopping:
    """Tells all streams of one server that it stops. While nobody waits, nobody looks."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()
        self._waiting = 0
        self._looking: asyncio.Task[None] | None = None

    async def wait(self) -> None:
        """Returns when the server has been told to stop (SIGTERM, Ctrl-C)."""
        self._waiting += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        try:
            await self._stopped.wait()
        finally:
            self._waiting -= 1
            if not self._waiting and self._looking is not None:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        while not AppStatus.should_exit:  # sse-starlette hears of uvicorn's signals; applications are not told of them in time
            await asyncio.sleep(_LOOK_SECONDS)
        self._stopped.set()


class EventStream(Response):
    """Server-sent events, after which the run behind them is ended and its place is free, whatever became of the client.

    ``chunks`` are made of ``events``, which have ``drain`` seconds left once the server stops.
    """

    def __init__(
        self, chunks: AsyncIterator[Event], events: Limited, place: AsyncExitStack, recorder: Recorder, stopping: Stopping, drain: float
    ) -> None:
        super().__init__(
            media_type="text/event-stream", headers={"Cache-Control": "no-store", "Connection": "keep-alive", "X-Accel-Buffering": "no"}
        )
        del self.headers["content-length"]
        self._chunks = chunks
        self._events = events
        self._place = place
        self._recorder = recorder
        self._stopping = stopping
        self._drain = drain
        self._sending = asyncio.Lock()
        self._spoke = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all."""
        beside = [
            asyncio.create_task(self._events.drain(self._stopping.wait, self._drain)),
            asyncio.create_task(self._keep_alive(send)),
        ]
        try:
            with suppress(GivenUp):  # nobody listens any more
                await unless(_left(receive), self._send_all(send))
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            if self._events.given_up is not None:
                self._recorder.failed(self._events.given_up)
            await self._events.close()
            await self._place.aclose()

    async def _send_all(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._chunks) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                self._spoke = True
                async with self._sending:
                    await send({"type": "http.response.body", "body": written(chunk), "more_body": True})
        async with self._sending:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _keep_alive(self, send: Send) -> None:
        while True:
            self._spoke = False
            await asyncio.sleep(QUIET_SECONDS)
            if not self._spoke:
                async with self._sending:
                    with suppress(OSError):
                        await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})


def written(event: Event) -> bytes:
    """One event as it is sent. Its fields hold no line ends: the data are JSON, which escapes them."""
    fields = {"data": event} if isinstance(event, str) else event
    return "".join(f"{name}: {value}\n" for name, value in fields.items()).encode() + b"\n"


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
