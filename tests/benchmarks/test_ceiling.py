from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from benchmarks.ceiling import Recorder


class Server(httpx.AsyncBaseTransport):
    """Streams as many events as are asked for."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())

        async def events() -> Any:
            for number in range(body.get("max_tokens", 0)):
                yield f'data: {{"token": {number}}}\n\n'.encode()
            yield b"data: [DONE]\n\n"

        return httpx.Response(200, content=events())


@pytest.fixture
def recorder() -> Recorder:
    made = Recorder()
    made._network = Server()  # type: ignore[assignment]
    return made


def test_a_stream_that_is_left_early_is_recorded_with_what_it_took(recorder: Recorder) -> None:
    async def ask(take: int | None, path: str = "/v1/completions", stream: bool = True) -> None:
        async with (
            httpx.AsyncClient(transport=recorder) as client,
            client.stream("POST", f"http://x{path}", json={"prompt": [1], "max_tokens": 9, "stream": stream}) as response,
        ):
            taken = 0
            async for _ in response.aiter_raw():
                taken += 1
                if taken == take:
                    break

    async def all_of_them() -> None:
        await ask(3)
        await ask(None)
        await ask(None, stream=False)
        await ask(None, path="/tokenize")

    asyncio.run(all_of_them())
    assert [json.loads(body)["max_tokens"] for body in recorder.bodies] == [3, 9, 9]
    assert all(json.loads(body)["prompt"] == [1] for body in recorder.bodies)
