"""Turns, time limits and a model that is away, through the routes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from rag.core.deadline import remaining
from rag.core.errors import ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.core.types import Sampling, SamplingRequest
from rag.serve.app import create_app
from rag.serve.settings import Limits
from tests.rag.serve.parts import Scripted, pipeline

CHAT: dict[str, Any] = {"model": "graft", "messages": [{"role": "user", "content": "How long may a suit be worn outside?"}]}


def calling(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def ask(client: httpx.AsyncClient, **more: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**CHAT, **more})


class Gate:
    """Answers once it is opened; knows how many are inside."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        self.most = 0

    async def run(self, question: str) -> str:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return question


def test_500_callers_at_a_queue_of_64() -> None:
    async def scenario() -> list[httpx.Response]:
        gate = Gate()
        app = create_app(Pipeline().add("gate", gate), limits=Limits(running=8, waiting=64))
        async with calling(app) as client:
            asked = [asyncio.create_task(ask(client)) for _ in range(500)]
            while sum(task.done() for task in asked) < 500 - 8 - 64:
                await asyncio.sleep(0.01)
            assert gate.inside == 8
            gate.open.set()
            replies = await asyncio.gather(*asked)
        assert gate.most == 8
        return replies

    replies = asyncio.run(scenario())
    statuses = [reply.status_code for reply in replies]
    assert (statuses.count(200), statuses.count(429)) == (72, 428)
    for reply in replies:
        if reply.status_code == 429:
            assert reply.json()["error"]["code"] == "queue_full"
            assert int(reply.headers["retry-after"]) >= 1


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_that_takes_too_long_is_given_up_and_its_run_cancelled(streaming: bool) -> None:
    model = Scripted(hangs_at=0)

    async def scenario() -> httpx.Response:
        async with calling(create_app(pipeline(model), limits=Limits(seconds=0.1))) as client:
            return await ask(client, stream=streaming)

    reply = asyncio.run(scenario())
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
    assert "0.1 s" in reply.json()["error"]["message"]
    assert model.cancelled == 1


def test_a_caller_may_set_an_earlier_end_but_no_later_one() -> None:
    model = Scripted(hangs_at=0)

    async def scenario() -> list[str]:
        async with calling(create_app(pipeline(model), limits=Limits(seconds=0.2))) as client:
            replies = [await ask(client, graft={"timeout": seconds}) for seconds in (0.05, 50)]
        return [reply.json()["error"]["message"] for reply in replies]

    assert asyncio.run(scenario()) == ["the answer was not there within 0.05 s", "the answer was not there within 0.2 s"]


@pytest.mark.parametrize("timeout", [0, -1, 1e308, "10", True])
def test_a_time_limit_is_a_number_of_seconds(timeout: object) -> None:
    async def scenario() -> httpx.Response:
        async with calling(create_app(pipeline())) as client:
            return await ask(client, graft={"timeout": timeout})

    reply = asyncio.run(scenario())
    assert reply.status_code == 400
    assert "graft.timeout" in reply.json()["error"]["message"]


def test_a_stream_that_takes_too_long_ends_with_an_error_event() -> None:
    model = Scripted(hangs_at=3)

    async def scenario() -> httpx.Response:
        async with calling(create_app(pipeline(model), limits=Limits(seconds=0.2))) as client:
            return await ask(client, stream=True)

    lines = [line.removeprefix("data: ") for line in asyncio.run(scenario()).text.split("\n") if line.startswith("data: ")]
    assert json.loads(lines[-2])["error"]["code"] == "timeout"
    assert lines[-1] == "[DONE]"
    assert not any('"finish_reason":"stop"' in line for line in lines)  # nothing that looks whole
    assert model.cancelled == 1


def test_waiting_counts_and_who_waits_too_long_leaves_the_queue() -> None:
    async def scenario() -> None:
        gate = Gate()
        app = create_app(Pipeline().add("gate", gate), limits=Limits(running=1, waiting=5))
        async with calling(app) as client:
            first = asyncio.create_task(ask(client))
            await asyncio.sleep(0.02)
            late = await ask(client, graft={"timeout": 0.05})
            assert late.status_code == 504
            gate.open.set()
            assert (await first).status_code == 200
            assert (await ask(client)).status_code == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("streaming", [False, True])
def test_places_are_free_again_after_streams_and_failures(streaming: bool) -> None:
    async def scenario() -> None:
        for model in (Scripted(), Scripted(error=ModelUnavailable("away")), Scripted(error=ModelUnavailable("away"), fails_at=3)):
            app = create_app(pipeline(model), limits=Limits(running=1, waiting=0))
            async with calling(app) as client:
                for _ in range(3):
                    assert (await ask(client, stream=streaming)).status_code in (200, 503)

    asyncio.run(scenario())


def test_who_works_for_a_question_knows_how_long() -> None:
    told: list[float | None] = []

    async def node(question: str) -> str:
        told.append(remaining())
        return question

    async def scenario() -> None:
        async with calling(create_app(Pipeline().add("node", node), limits=Limits(seconds=7.0))) as client:
            await ask(client)
            await ask(client, stream=True)

    asyncio.run(scenario())
    assert len(told) == 2
    assert all(left is not None and 6.0 < left <= 7.0 for left in told)


async def echo(question: str, sampling: SamplingRequest | None = None) -> str:
    return f"{question}: {sampling}"


async def shout(text: str) -> str:
    return text.upper()


async def mislabelled(question: str, sampling: int = 7) -> str:
    return f"{question}: {sampling}"


def asked_of(pipe: Pipeline, **more: Any) -> tuple[str, list[str]]:
    async def scenario() -> httpx.Response:
        async with calling(create_app(pipe)) as client:
            return await ask(client, **more)

    message = asyncio.run(scenario()).json()["choices"][0]["message"]
    return message["content"], message["graft"]["notes"]


def test_who_writes_the_answer_and_takes_it_is_told_how_to_sample() -> None:
    text, notes = asked_of(Pipeline().add("echo", echo), temperature=0.5, max_completion_tokens=3, user="ann")
    assert text.endswith(f": {SamplingRequest(max_tokens=3, temperature=0.5)}")
    assert notes == ["not followed: user (the pipeline decides how its model writes)"]
    assert asked_of(Pipeline().add("echo", echo))[0].endswith(": None")


@pytest.mark.parametrize(
    "pipe",
    [
        Pipeline().add("echo", echo).add("shout", shout).connect("echo", "shout"),
        Pipeline().add("mislabelled", mislabelled),
        Pipeline().add("shout", shout),
    ],
)
def test_what_nobody_follows_is_named(pipe: Pipeline) -> None:
    text, notes = asked_of(pipe, temperature=0.5, max_completion_tokens=3)
    assert "SamplingRequest" not in text
    assert notes == ["not followed: max_completion_tokens, temperature (the pipeline decides how its model writes)"]


def test_sampling_is_for_one_question_alone() -> None:
    model = Scripted()

    async def scenario() -> None:
        async with calling(create_app(pipeline(model))) as client:
            asked = [ask(client, temperature=0.5, max_tokens=3), ask(client), ask(client, seed=1), ask(client, max_tokens=9_999)]
            await asyncio.gather(*asked)

    asyncio.run(scenario())
    assert sorted(map(str, model.samplings)) == sorted(
        map(str, [Sampling(max_tokens=3, temperature=0.5), Sampling(), Sampling(seed=1), Sampling(max_tokens=256)])
    )


@pytest.mark.parametrize("events", [False, True])
def test_the_tokens_of_the_answer_are_told_to_those_who_want_events(events: bool) -> None:
    model = Scripted(offers=("logprobs", "token_ids"))

    async def scenario() -> httpx.Response:
        async with calling(create_app(pipeline(model))) as client:
            return await ask(client, stream=True, graft={"events": events})

    data = [line.removeprefix("data: ") for line in asyncio.run(scenario()).text.splitlines() if line.startswith("data: {")]
    told = [chunk["graft"]["event"] for chunk in map(json.loads, data) if "event" in chunk.get("graft", {})]
    tokens = [event["tokens"] for event in told if event["type"] == "tokens"]
    assert tokens == ([[[word, 0.5] for word in model.text.split(" ")]] if events else [])
    assert model.samplings == [Sampling(logprobs=0 if events else None)]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_model_that_is_away_is_left_alone_after_a_few_failures(streaming: bool) -> None:
    model = Scripted(error=ModelUnavailable("connection refused at 10.0.0.1"))

    async def scenario() -> list[httpx.Response]:
        async with calling(create_app(pipeline(model))) as client:
            return [await ask(client, stream=streaming) for _ in range(8)]

    replies = asyncio.run(scenario())
    assert {reply.status_code for reply in replies} == {503}
    assert ["retry-after" in reply.headers for reply in replies] == [False] * 5 + [True] * 3
    assert not any("10.0.0.1" in reply.text for reply in replies)
