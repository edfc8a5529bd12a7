from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from generators.models.connections import POOL, Connections


class Gate(httpx.AsyncBaseTransport):
    """Holds every request until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.waiting += 1
        await self.open.wait()
        return httpx.Response(200)


@pytest.mark.parametrize(
    ("limit", "calls", "at_once", "pools"), [(256, 3 * POOL + 1, 3 * POOL + 1, 4), (5, 12, 5, 1), (POOL + 2, 40, POOL + 2, 2)]
)
def test_calls_spread_over_small_pools_up_to_the_limit(limit: int, calls: int, at_once: int, pools: int) -> None:
    async def go() -> tuple[int, int]:
        gate = Gate()
        connections = Connections(limit, 5.0, gate)

        async def call() -> None:
            async with connections.client() as client:
                await client.get("http://models.example/")

        tasks = [asyncio.create_task(call()) for _ in range(calls)]
        for _ in range(50):
            await asyncio.sleep(0)
        seen = gate.waiting, len(connections._pools)
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.waiting == calls
        await connections.close()
        return seen

    assert asyncio.run(go()) == (at_once, pools)


def test_a_failed_or_cancelled_call_gives_its_place_back() -> None:
    async def go() -> None:
        gate = Gate()
        connections = Connections(1, 5.0, gate)

        async def call(fail: bool) -> Any:
            async with connections.client() as client:
                if fail:
                    raise RuntimeError("the caller's own fault")
                return await client.get("http://models.example/")

        with pytest.raises(RuntimeError, match="own fault"):
            await call(fail=True)
        held = asyncio.create_task(call(fail=False))
        await asyncio.sleep(0.01)
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        gate.open.set()
        assert (await asyncio.wait_for(call(fail=False), 5)).status_code == 200
        assert [pool.calls for pool in connections._pools] == [0]

    asyncio.run(go())
