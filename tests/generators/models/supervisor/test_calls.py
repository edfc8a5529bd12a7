"""Calls that meet a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import pytest

from generators.models.rack import Rack
from generators.models.vllm import VLLM
from rag.core.errors import GraftError, ModelUnavailable
from rag.core.types import Sampling
from tests.generators.models.supervisor.fake_engine import EVENTS
from tests.generators.models.supervisor.parts import Fake, order, run, until

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def answers(name: str) -> list[str]:
    """What a whole answer is: in one piece, or as a stream."""
    return [name, name * EVENTS]


def test_calls_go_on_over_a_restart_or_fail_but_are_never_cut(fake: Fake) -> None:
    fake.plan("lora")

    async def ask(model: VLLM, streamed: bool) -> str:
        if not streamed:
            return (await model.agenerate("hello", Sampling(max_tokens=8))).text
        pieces = [piece async for piece in model.astream("hello", Sampling(max_tokens=8))]
        assert not isinstance(pieces[-1], str)
        assert pieces[-1].text == "".join(piece for piece in pieces if isinstance(piece, str))
        return pieces[-1].text

    async def outcome(work: Awaitable[str]) -> str:
        try:
            return await work
        except ModelUnavailable as error:
            return f"error: {error}"

    async def work() -> None:
        async with fake.supervisor() as engine:
            await engine.ready()
            model = VLLM(engine.url, retries=8)
            model._http.pause = 0.05
            rack = Rack(model, 2, folders={name: f"/adapters/{name}" for name in "ab"})
            worn = {name: rack.wearing(name) for name in "ab"}
            assert [await ask(worn[name], streamed) for name in "ab" for streamed in (False, True)] == [*answers("a"), *answers("b")]
            assert rack.loads == 2
            await order(engine, "cut")  # the next stream ends with the server
            mixed = [(name, streamed) for name in "ab" for streamed in (False, True)] * 6
            got = await asyncio.gather(*(outcome(ask(worn[name], streamed)) for name, streamed in mixed))
            for (name, streamed), text in zip(mixed, got, strict=True):
                assert text == answers(name)[streamed] or text.startswith("error: "), text
            assert any("broke off after" in text for text in got)
            await until(lambda: engine.restarts == 1 and engine.state == "ready")
            loads = rack.loads
            assert [await ask(worn[name], streamed) for name in "ab" for streamed in (False, True)] == [*answers("a"), *answers("b")]
            assert rack.loads in (loads, loads + 1, loads + 2)
            assert rack.loads >= 4  # each was given to the new server too
            await model.aclose()

    run(work())


def test_without_a_server_a_call_fails_in_words(fake: Fake) -> None:
    fake.plan("lora", "exit=2")

    async def work() -> None:
        async with fake.supervisor() as engine:
            await engine.ready()
            model = VLLM(engine.url, retries=1)
            model._http.pause = 0.01
            assert (await model.agenerate("hello")).text == "base"
            await order(engine, "die")
            await until(lambda: engine.state == "failed")
            with pytest.raises(GraftError, match="did not answer in 2 attempts") as caught:
                await model.agenerate("hello")
            assert isinstance(caught.value, ModelUnavailable)
            await model.aclose()

    run(work())
