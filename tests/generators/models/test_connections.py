from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from generators.models.connections import Connections
from generators.models.transport import Transport


class Gate(httpx.AsyncBaseTransport):
    """Holds every request until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.waiting = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.waiting += 1
        await self.open.wait()
        return httpx.Response(200)


@pytest.mark.parametrize(("limit", "calls", "at_once"), [(256, 25, 25), (5, 12, 5)])
def test_calls_go_side_by_side_up_to_the_limit(limit: int, calls: int, at_once: int) -> None:
    async def go() -> int:
        gate = Gate()
        connections = Connections("http://models.example", limit, 5.0, gate)

        async def call() -> None:
            async with connections.client() as client:
                await client.get("http://models.example/")

        tasks = [asyncio.create_task(call()) for _ in range(calls)]
        for _ in range(50):
            await asyncio.sleep(0)
        seen = gate.waiting
        gate.open.set()
        await asyncio.gather(*tasks)
        assert gate.waiting == calls
        await connections.close()
        return seen

    assert asyncio.run(go()) == at_once


@pytest.mark.parametrize(
    ("environment", "address", "direct"),
    [
        ({}, "http://models.example", True),
        ({"http_proxy": "http://proxy.example:3128"}, "http://models.example", False),
        ({"http_proxy": "http://proxy.example:3128"}, "https://models.example", True),
        ({"all_proxy": "http://proxy.example:3128"}, "https://models.example", False),
        ({"http_proxy": "http://proxy.example:3128", "no_proxy": "models.example"}, "http://models.example", True),
        ({"http_proxy": "http://proxy.example:3128", "no_proxy": "*"}, "http://models.example", True),
    ],
)
def test_a_proxy_of_the_environment_is_followed(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], address: str, direct: bool
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    async def go() -> None:
        connections = Connections(address, 4, 5.0, None)
        async with connections.client() as client:
            assert isinstance(client._transport_for_url(httpx.URL(address)), Transport) is direct
        await connections.close()

    asyncio.run(go())


def test_a_failed_or_cancelled_call_gives_its_place_back() -> None:
    async def go() -> None:
        gate = Gate()
        connections = Connections("http://models.example", 1, 5.0, gate)

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

    asyncio.run(go())
