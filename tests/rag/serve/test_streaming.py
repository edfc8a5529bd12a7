from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from sse_starlette.sse import AppStatus

from rag.serve import streaming
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.recorder import Recorder
from rag.serve.streaming import Event, EventStream, Stopping, written
from rag.serve.waiting import Limited


class Place:
    """What a stream holds: its run and its place in the queue."""

    def __init__(self) -> None:
        self.closed: list[str] = []
        self.stack = AsyncExitStack()
        self.stack.callback(lambda: self.closed.append("place"))

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield None

    async def aclose(self) -> None:
        self.closed.append("run")


async def sent(chunks: AsyncIterator[Event], place: Place, stays: bool = True) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if stays:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        messages.append(message)

    stream = EventStream(chunks, Limited(cast(Any, place)), place.stack, Recorder(Metrics({})), Stopping(), 5.0)
    await asyncio.wait_for(stream({"type": "http"}, receive, send), 20)
    return messages


async def told(*events: Event, pause: float = 0.0) -> AsyncIterator[Event]:
    for event in events:
        yield event
        await asyncio.sleep(pause)


def test_events_come_as_they_are_and_the_run_ends_with_them() -> None:
    place = Place()
    messages = asyncio.run(sent(told('{"text":"服装"}', {"id": "2", "data": "[DONE]"}), place))
    assert messages[0]["status"] == 200
    headers = dict(messages[0]["headers"])
    assert headers[b"content-type"].startswith(b"text/event-stream")
    assert b"content-length" not in headers
    assert headers[b"cache-control"] == b"no-store"
    assert [message["body"] for message in messages[1:]] == ['data: {"text":"服装"}\n\n'.encode(), b"id: 2\ndata: [DONE]\n\n", b""]
    assert [message["more_body"] for message in messages[1:]] == [True, True, False]
    assert place.closed == ["run", "place"]


def test_a_caller_that_leaves_ends_it() -> None:
    async def endless() -> AsyncIterator[Event]:
        while True:
            await asyncio.sleep(0.01)
            yield "x"

    place = Place()
    messages = asyncio.run(sent(endless(), place, stays=False))
    assert not any(message.get("more_body") is False for message in messages)
    assert place.closed == ["run", "place"]


def test_a_comment_keeps_a_silent_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "QUIET_SECONDS", 0.05)
    bodies = [message.get("body") for message in asyncio.run(sent(told("a", "b", pause=0.2), Place()))]
    assert bodies[1] == b"data: a\n\n"
    assert b": still here\n\n" in bodies[2 : bodies.index(b"data: b\n\n")]


def test_no_comment_comes_between_events_that_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "QUIET_SECONDS", 0.2)
    bodies = [message.get("body") for message in asyncio.run(sent(told(*"abcdefgh", pause=0.05), Place()))]
    assert b": still here\n\n" not in bodies


def test_a_server_that_stops_tells_all_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        stopping = Stopping()
        waiting = [asyncio.create_task(stopping.wait()) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in waiting)
        monkeypatch.setattr(AppStatus, "should_exit", True)
        await asyncio.wait_for(asyncio.gather(*waiting), 5)

    asyncio.run(scenario())


def test_nobody_looks_while_nobody_waits() -> None:
    async def scenario() -> None:
        stopping, before = Stopping(), asyncio.all_tasks()
        waiting = asyncio.create_task(stopping.wait())
        await asyncio.sleep(0.01)
        assert len(asyncio.all_tasks() - before) == 2
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert asyncio.all_tasks() == before

    asyncio.run(scenario())


def test_fields_are_lines() -> None:
    assert written({"event": "x", "data": "1"}) == b"event: x\ndata: 1\n\n"
