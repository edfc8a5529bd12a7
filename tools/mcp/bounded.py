"""Answers of bounded size, for a client that reads them whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2

from rag.core.errors import RunError


class Bounded(httpx2.AsyncBaseTransport):
    """An HTTP transport around ``inner`` that breaks off an answer after ``limit`` bytes, but no stream of events: its events are bounded
    one by one, and it may last."""

    def __init__(self, inner: Any, limit: int) -> None:
        self._inner = inner
        self._limit = limit

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send ``request``. Reading the answer raises `RunError` past the limit."""
        response: httpx2.Response = await self._inner.handle_async_request(request)
        if not response.headers.get("content-type", "").lower().startswith("text/event-stream"):
            response.stream = _Counted(response.stream, self._limit)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class _Counted(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, limit: int) -> None:
        self._stream = stream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for piece in self._stream:
            read += len(piece)
            if read > self._limit:
                raise RunError(f"the answer is longer than {self._limit:,} bytes")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
