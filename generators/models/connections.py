"""Connections to one server, in small pools: one large pool costs more time the more calls are in flight."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

POOL = 8
"""Calls that share a pool. httpcore 1.0 looks through all connections of a pool for each call that begins or ends in it."""

IDLE = 2.0
"""Seconds that an idle connection is kept. vLLM's server closes it after 5; a call that is sent just then finds nobody."""


@dataclass(slots=True)
class _Pool:
    """One client and the calls that it carries now."""

    client: httpx.AsyncClient
    calls: int = 0


class Connections:
    """At most ``limit`` calls in flight, for use within one event loop; more wait, without a limit of time."""

    def __init__(self, limit: int, timeout: float, transport: httpx.AsyncBaseTransport | None) -> None:
        self._room = asyncio.Semaphore(limit)
        self._timeout = timeout
        self._transport = transport
        self._context: Any = None  # of TLS; reading the certificates takes long, so once for all pools
        self._pools: list[_Pool] = []

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client for one call, whose answer is read before the block ends."""
        async with self._room:
            pool = next((pool for pool in self._pools if pool.calls < POOL), None) or self._opened()
            pool.calls += 1
            try:
                yield pool.client
            finally:
                pool.calls -= 1

    async def close(self) -> None:
        """Close all connections."""
        for pool in self._pools:
            await pool.client.aclose()
        self._pools.clear()

    def _opened(self) -> _Pool:
        import httpx

        if self._context is None:
            self._context = httpx.create_ssl_context()
        timeout = httpx.Timeout(self._timeout, connect=min(self._timeout, 10.0), pool=None)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=POOL, keepalive_expiry=IDLE)
        self._pools.append(_Pool(httpx.AsyncClient(verify=self._context, limits=limits, timeout=timeout, transport=self._transport)))
        return self._pools[-1]
