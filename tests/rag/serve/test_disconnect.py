"""What only shows below HTTP clients: callers that leave, send for ever or send too slowly, and a server that stops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest
from fastapi import FastAPI

from rag.core.trace import TextDelta
from rag.serve import limits
from rag.serve.app import create_app
from rag.serve.asking import first_words
from rag.serve.chat import Completion, stream
from rag.serve.waiting import Limited
from tests.rag.serve.parts import OneShelf, Scripted, pipeline

CHAT = {"model": "graft", "messages": [{"role": "user", "content": "How long may a suit be worn outside?"}]}
SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"content-type", b"application/json")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 8080),
}


async def call(app: FastAPI, path: str, receive: Callable[[], Awaitable[Any]]) -> list[dict[str, Any]]:
    """The messages that the application sends to a caller that behaves as ``receive``."""
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(app({**SCOPE, "path": path, "raw_path": path.encode()}, receive, send), 20)
    return sent


def leaves_when(asked: dict[str, Any], ready: Callable[[], bool]) -> Callable[[], Awaitable[Any]]:
    """A caller that sends ``asked`` and goes as soon as ``ready``."""
    messages = [{"type": "http.request", "body": json.dumps(asked).encode(), "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        while not ready():
            await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    return receive


@pytest.mark.parametrize("hangs_at", [0, 3], ids=["before the first word", "in the middle"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_caller_that_leaves_cancels_the_run(hangs_at: int, streaming: bool) -> None:
    model = Scripted(hangs_at=hangs_at)
    app = create_app(pipeline(model))

    async def scenario() -> None:
        sent = await call(app, "/v1/chat/completions", leaves_when({**CHAT, "stream": streaming}, lambda: bool(model.prompts)))
        assert not any(b"[DONE]" in m.get("body", b"") for m in sent)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert model.cancelled == 1


def test_a_caller_that_leaves_cancels_a_retrieval() -> None:
    class Slow(OneShelf):
        started = cancelled = False

        async def run(self, query: str, k: int | None = None, filter: Any = None) -> list[Any]:
            self.started = True
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            return []

    from rag.core.types import Hit

    Slow.run.__annotations__.update({"return": list[Hit]})
    shelf = Slow()
    app = create_app(pipeline(shelf=shelf))
    asyncio.run(call(app, "/v1/retrieve", leaves_when({"query": "suit"}, lambda: shelf.started)))
    assert shelf.cancelled


def test_a_body_without_end_is_cut_off_at_the_limit() -> None:
    taken = 0

    async def receive() -> Any:
        nonlocal taken
        taken += 64_000
        return {"type": "http.request", "body": b" " * 64_000, "more_body": True}

    sent = asyncio.run(call(create_app(pipeline()), "/v1/chat/completions", receive))
    assert sent[0]["status"] == 413
    assert taken < limits.MAX_BODY + 2 * 64_000


def test_a_body_that_comes_too_slowly_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "READ_SECONDS", 0.05)

    async def receive() -> Any:
        await asyncio.sleep(0.02)
        return {"type": "http.request", "body": b" ", "more_body": True}

    sent = asyncio.run(call(create_app(pipeline()), "/v1/chat/completions", receive))
    assert sent[0]["status"] == 408


def test_a_stream_that_outlives_the_shutdown_ends_with_an_error_event() -> None:
    model = Scripted(hangs_at=3)

    async def scenario() -> list[str]:
        stopping = anyio.Event()
        events = pipeline(model).astream("How long?")
        limited = Limited(events)
        draining = asyncio.create_task(limited.drain(stopping.wait, 0.0))
        chunks = stream(Completion("graft", []), await first_words(events), limited, False)
        seen = [await anext(chunks) for _ in range(5)]
        stopping.set()
        rest = [chunk async for chunk in chunks]
        await draining
        await limited.close()
        return seen + rest

    chunks = asyncio.run(scenario())
    assert "".join(json.loads(c)["choices"][0]["delta"].get("content", "") for c in chunks[:5]) == "A suit may"
    assert json.loads(chunks[5])["error"]["code"] == "shutting_down"
    assert chunks[6] == "[DONE]"
    assert model.cancelled == 1


def test_the_drain_is_counted_from_the_stop_and_not_from_the_last_word() -> None:
    """A model that goes on writing must not put the end off with every word."""

    async def scenario() -> list[str]:
        stopping = anyio.Event()
        events = _words()
        limited = Limited(events)
        draining = asyncio.create_task(limited.drain(stopping.wait, 0.3))
        chunks = stream(Completion("graft", []), await first_words(events), limited, False)
        assert "content" in await anext(chunks)
        stopping.set()
        async with asyncio.timeout(20):
            rest = [chunk async for chunk in chunks]
        await draining
        return rest

    rest = asyncio.run(scenario())
    assert "content" in json.loads(rest[0])["choices"][0]["delta"]
    assert json.loads(rest[-2])["error"]["code"] == "shutting_down"
    assert rest[-1] == "[DONE]"


async def _words() -> AsyncIterator[TextDelta]:
    while True:
        await asyncio.sleep(0.01)
        yield TextDelta("word ")
