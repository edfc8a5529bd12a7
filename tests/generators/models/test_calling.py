from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from generators.models.calling import called, streamed
from rag.core.errors import ModelUnavailable
from rag.core.trace import Span, count, current_span, measured, span
from rag.core.types import Generation, Sampling

SAMPLING = Sampling(max_tokens=9, temperature=0.5, top_p=0.9, seed=0, frequency_penalty=-1.0)
ASKED = {"provider": "vllm", "max_tokens": "9", "temperature": "0.5", "top_p": "0.9", "seed": "0", "frequency_penalty": "-1.0"}


async def answer(text: str = "Hi there", wait: float = 0.0) -> Generation:
    await asyncio.sleep(wait)
    count(calls=1, prompt_tokens=5, generated_tokens=len(text))
    return Generation(text, finish="length")


async def pieces(error: Exception | None = None, wait: float = 0.0) -> AsyncGenerator[str | Generation, None]:
    written = 0
    try:
        for piece in ("Hi", " there"):
            await asyncio.sleep(wait)
            written += 1
            yield piece
        if error is not None:
            raise error
    finally:
        count(calls=1, prompt_tokens=5, generated_tokens=written)
    yield Generation("Hi there", finish="length")


def ended(node: Span) -> Span:
    (call,) = node.children
    assert call.seconds > 0
    assert node.counts == {}
    return call


def test_a_call_has_a_span_with_what_was_asked_and_its_own_counters() -> None:
    async def scenario() -> Generation:
        with span("answer") as node:
            got = await called("chat", "vllm", "small", answer(), SAMPLING)
        call = ended(node)
        assert (call.node, call.inputs, call.output, call.error) == ("chat small", ASKED, "length", "")
        assert call.counts == {"calls": 1, "prompt_tokens": 5, "generated_tokens": 8}
        assert node.total("generated_tokens") == 8
        return got

    assert asyncio.run(scenario()).text == "Hi there"


def test_only_what_is_unusual_is_told_beside_length_and_temperature() -> None:
    async def scenario() -> None:
        with span("answer") as node:
            await called("chat", "local", "small", answer(), Sampling())
            await called("score", "local", "small", answer())
        assert [call.node for call in node.children] == ["chat small", "score small"]
        assert [call.inputs for call in node.children] == [
            {"provider": "local", "max_tokens": "256", "temperature": "0.0"},
            {"provider": "local"},
        ]

    asyncio.run(scenario())


def test_many_calls_at_once_keep_their_counters_apart() -> None:
    async def scenario() -> None:
        with span("answer") as node:
            await asyncio.gather(*(called("chat", "vllm", str(n), answer("x" * n, 0.001), SAMPLING) for n in range(1, 30)))
        assert {call.node: call.counts["generated_tokens"] for call in node.children} == {f"chat {n}": n for n in range(1, 30)}
        assert node.total("calls") == 29

    asyncio.run(scenario())


def test_a_stream_lasts_until_its_last_piece_and_leaves_its_reader_alone() -> None:
    async def scenario() -> None:
        with span("answer") as node:
            heard = []
            async for piece in streamed("vllm", "small", pieces(wait=0.01), SAMPLING):
                assert current_span.get() is node
                count(heard=1)
                heard.append(piece)
            assert current_span.get() is node
        assert heard == ["Hi", " there", Generation("Hi there", finish="length")]
        (call,) = node.children
        assert (call.node, call.inputs, call.output, call.error) == ("chat small", ASKED, "length", "")
        assert call.seconds >= 0.02
        assert call.counts == {"calls": 1, "prompt_tokens": 5, "generated_tokens": 2}
        assert node.counts == {"heard": 3}

    asyncio.run(scenario())


def test_a_reader_that_takes_the_generation_and_goes_has_cancelled_nothing() -> None:
    async def scenario() -> None:
        with span("answer") as node:
            stream = streamed("vllm", "small", pieces(), SAMPLING)
            async for piece in stream:
                if isinstance(piece, Generation):
                    break
            await stream.aclose()
        assert (ended(node).output, ended(node).error) == ("length", "")

    asyncio.run(scenario())


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_reader_that_leaves_has_cancelled_the_call_whose_tokens_still_count(elsewhere: bool) -> None:
    async def scenario() -> None:
        with span("answer") as node:
            stream = streamed("vllm", "small", pieces(), SAMPLING)
            assert await anext(stream) == "Hi"
            await (asyncio.create_task(stream.aclose()) if elsewhere else stream.aclose())
        call = ended(node)
        assert (call.output, call.error) == ("", "cancelled")
        assert call.counts == {"calls": 1, "prompt_tokens": 5, "generated_tokens": 1}

    asyncio.run(scenario())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_cancelled_task_cancels_its_call(streaming: bool) -> None:
    async def work() -> None:
        if streaming:
            async for _ in streamed("vllm", "small", pieces(wait=9), SAMPLING):
                pass
        await called("chat", "vllm", "small", answer(wait=9), SAMPLING)

    async def scenario() -> None:
        with span("answer") as node:
            task = asyncio.create_task(work())
            await asyncio.sleep(0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert ended(node).error == "cancelled"

    asyncio.run(scenario())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_failure_is_told_and_passes(streaming: bool) -> None:
    async def fails() -> Generation:
        raise ModelUnavailable("away")

    async def work() -> None:
        if streaming:
            async for _ in streamed("vllm", "small", pieces(ModelUnavailable("away")), SAMPLING):
                pass
        await called("chat", "vllm", "small", fails(), SAMPLING)

    async def scenario() -> None:
        with span("answer") as node, pytest.raises(ModelUnavailable):
            await work()
        assert ended(node).error == "ModelUnavailable: away"

    asyncio.run(scenario())


def test_without_a_run_nothing_is_kept() -> None:
    async def scenario() -> None:
        assert (await called("chat", "vllm", "small", answer(), SAMPLING)).text == "Hi there"
        assert current_span.get() is None

    asyncio.run(scenario())


def test_a_span_costs_little() -> None:
    """Under 20 µs; the least of several rounds, because a busy machine is no fault of it."""

    async def nothing() -> Generation:
        return GENERATION

    async def scenario() -> float:
        rounds = []
        for _ in range(20):
            began = time.perf_counter()
            for _ in range(100):
                await called("chat", "vllm", "small", nothing(), SAMPLING)
            rounds.append((time.perf_counter() - began) / 100)
        return min(rounds)

    with measured("answer"):
        assert asyncio.run(scenario()) < 20e-6


GENERATION = Generation("")
