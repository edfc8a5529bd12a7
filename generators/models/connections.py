"""Connections to one server: as many as calls are in flight, up to a limit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    import httpx

IDLE = 2.0
"""Seconds that an idle connection is kept. vLLM's server closes it after 5; a call that is sent just then finds nobody."""


class Connections:
    """At most ``limit`` calls to ``address`` in flight, for use within one event loop; more wait, without a limit of time."""

    def __init__(self, address: str, limit: int, timeout: float, transport: httpx.AsyncBaseTransport | None) -> None:
        self._address = address
        self._room = asyncio.Semaphore(limit)
        self._timeout = timeout
        self._transport = transport
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client for one call, whose answer is read before the block ends."""
        async with self._room:
            if self._client is None:
                self._client = self._opened()
            yield self._client

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _opened(self) -> httpx.AsyncClient:
        import httpx

        tls, transport = httpx.create_ssl_context(), self._transport
        if transport is None and not _by_proxy(self._address):
            from generators.models.transport import Transport

            transport = Transport(tls, IDLE)
        timeout = httpx.Timeout(self._timeout, connect=min(self._timeout, 10.0), pool=None)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE)
        return httpx.AsyncClient(verify=tls, limits=limits, timeout=timeout, transport=transport)


def _by_proxy(address: str) -> bool:
    """Whether the environment names a proxy for ``address``; httpx's own transport follows it."""
    parts, proxies = urlsplit(address), getproxies()
    return bool(proxies.get(parts.scheme) or proxies.get("all")) and not proxy_bypass(parts.hostname or "")
