from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from benchmarks.ceiling import Recorder, Sent, bare


class Server(httpx.AsyncBaseTransport):
    """Streams as many events as are asked for; ``read`` are those that were taken of each stream."""

    def __init__(self) -> None:
        self.read: list[int] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())

        async def events() -> Any:
            number = 0
            try:
                for number in range(1, body.get("max_tokens", 0) + 1):
                    yield f'data: {{"token": {number}}}\n\n'.encode()
                yield b"data: [DONE]\n\n"
            finally:
                self.read.append(number)

        return httpx.Response(200, content=events())


@pytest.fixture
def recorder() -> Recorder:
    made = Recorder()
    made._network = Server()  # type: ignore[assignment]
    return made


def test_a_stream_that_is_left_early_is_recorded_with_where_it_was_left(recorder: Recorder) -> None:
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
    assert [sent.left for sent in recorder.sent] == [3, None, None]
    assert all(
        json.loads(sent.body) == {"prompt": [1], "max_tokens": 9, "stream": sent.left is not None or at == 1}
        for at, sent in enumerate(recorder.sent)
    )


def test_the_bare_client_leaves_where_the_pipeline_left(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    client = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **given: client(transport=server, headers=given["headers"]))
    body = json.dumps({"max_tokens": 5, "stream": True}).encode()
    assert bare("http://x/v1", [Sent(body, 2), Sent(body), Sent(body, 5)]) > 0
    assert sorted(server.read) == [2, 5, 5]
