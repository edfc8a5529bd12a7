"""The adapters of one server, against a scripted one; tests/vllm has the real one."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import pytest

from generators.models.rack import AdapterInUse, Rack
from generators.models.vllm import VLLM
from rag.core.errors import AdapterError, InputError, ModelRefused, ModelUnavailable
from rag.core.sync import run_sync
from rag.core.types import Generation, Sampling
from tests.generators.models.lora_server import LoraServer, model

FOLDERS = {name: f"/adapters/{name}" for name in "abcde"}


def rack_on(server: LoraServer, slots: int, **options: Any) -> Rack:
    return Rack(model(server), slots, folders=FOLDERS, **options)


async def ask(models: Sequence[VLLM]) -> list[Generation]:
    return await asyncio.gather(*(one.agenerate("hello") for one in models))


def test_an_adapter_is_loaded_when_it_is_first_asked(server: LoraServer) -> None:
    rack = rack_on(server, 2)
    worn = rack.wearing("a")
    assert (worn.name, rack.loaded, server.loads) == ("a", (), [])
    assert [worn.generate("hello").text, worn.generate("hello").text] == ["a", "a"]
    assert (rack.loaded, server.loaded, rack.loads) == (("a",), {"a": "/adapters/a"}, 1)
    assert rack.wearing(None).generate("hello").text == "base"
    assert worn.with_adapter("b").generate("hello").text == "b"
    assert rack.loaded == ("a", "b")


@pytest.fixture
def server() -> LoraServer:
    return LoraServer()


def test_the_least_recently_used_goes(server: LoraServer) -> None:
    rack = rack_on(server, 2)
    for name in "abacab":
        assert rack.wearing(name).generate("hello").text == name
    assert (server.loads, server.unloads, rack.loaded) == (["a", "b", "c", "b"], ["b", "c"], ("a", "b"))


def test_calls_at_once_cause_one_load() -> None:
    server = LoraServer(pause=0.02)
    rack = rack_on(server, 2)
    got = asyncio.run(ask([rack.wearing("a")] * 20 + [rack.wearing("b")] * 20))
    assert [generation.text for generation in got] == ["a"] * 20 + ["b"] * 20
    assert (sorted(server.loads), server.unloads) == (["a", "b"], [])


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_more_adapters_than_slots_in_any_order(slots: int) -> None:
    server = LoraServer(pause=0.004)
    rack = rack_on(server, slots)
    draw = random.Random(slots)
    names = [draw.choice([*FOLDERS, None]) for _ in range(100)]

    async def staggered(name: str | None) -> str:
        await asyncio.sleep(draw.random() * 0.1)
        return (await rack.wearing(name).agenerate("hello")).text

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(staggered(name) for name in names))

    assert asyncio.run(all_of_them()) == [name or "base" for name in names]
    assert (server.robbed, server.most <= slots) == ([], True)
    assert len(rack.loaded) == slots == len(server.loaded)


def test_an_adapter_is_dropped_unless_it_is_in_use(server: LoraServer) -> None:
    rack = rack_on(server, 2)
    assert run_sync(rack.drop("a")) is False
    rack.wearing("a").generate("hello")

    async def in_use() -> None:
        async with rack.lease("a"):
            await rack.drop("a")

    with pytest.raises(AdapterInUse, match="'a' is in use by 1 calls"):
        run_sync(in_use())
    assert (run_sync(rack.drop("a")), rack.loaded, server.loaded) == (True, (), {})
    assert rack.wearing("a").generate("hello").text == "a"
    assert rack.loads == 2


def test_none_waits_for_ever_behind_adapters_in_constant_use() -> None:
    server = LoraServer(pause=0.005)
    rack = rack_on(server, 2, patience=5.0)

    async def run() -> str:
        busy = [asyncio.create_task(_again_and_again(rack.wearing(name))) for name in "aabb" for _ in range(3)]
        await asyncio.sleep(0.03)
        try:
            return (await asyncio.wait_for(rack.wearing("c").agenerate("hello"), 5.0)).text
        finally:
            for task in busy:
                task.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    assert asyncio.run(run()) == "c"
    assert server.robbed == []


async def _again_and_again(worn: VLLM) -> None:
    while True:
        await worn.agenerate("hello")


def test_slots_that_stay_taken_are_an_error(server: LoraServer) -> None:
    rack = rack_on(server, 1, patience=0.05)

    async def run() -> None:
        async with rack.lease("a"):
            with pytest.raises(ModelUnavailable, match=r"all 1 slots .* by: a; give the rack more slots"):
                await rack.wearing("b").agenerate("hello")
            assert (await rack.wearing("a").agenerate("hello")).text == "a"
        assert (await rack.wearing("b").agenerate("hello")).text == "b"

    asyncio.run(run())
    assert server.robbed == []


def test_a_call_that_is_cancelled_holds_nothing() -> None:
    server = LoraServer(pause=0.02)
    rack = rack_on(server, 1)

    async def run() -> list[str]:
        for wait in (0.0, 0.001, 0.004, 0.006, 0.01, 0.02):
            task = asyncio.create_task(rack.wearing("ab"[int(wait * 1000) % 2]).agenerate("hello"))
            await asyncio.sleep(wait)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return [generation.text for generation in await ask([rack.wearing(name) for name in "cab"])]

    assert asyncio.run(run()) == ["c", "a", "b"]
    run_sync(asyncio.sleep(0))  # the last call's end has reached the loop
    assert sum(rack._in_use.values()) == 0


def test_callers_in_several_loops_share_the_rack() -> None:
    from concurrent.futures import ThreadPoolExecutor

    server = LoraServer(pause=0.005)
    rack = rack_on(server, 2)
    with ThreadPoolExecutor(6) as threads:
        names = list("abcabc")
        got = threads.map(lambda name: asyncio.run(ask([rack.wearing(name)] * 4)), names)
        assert [[generation.text for generation in four] for four in got] == [[name] * 4 for name in names]
    assert (server.robbed, server.most) == ([], 2)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_server_that_was_started_anew_is_given_its_adapters_again(server: LoraServer, streamed: bool) -> None:
    rack = rack_on(server, 2)
    assert [rack.wearing(name).generate("hello").text for name in "ab"] == ["a", "b"]
    server.restart()

    async def one(name: str) -> str:
        if not streamed:
            return (await rack.wearing(name).agenerate("hello")).text
        return "".join([piece async for piece in rack.wearing(name).astream("hello") if isinstance(piece, str)])

    async def run() -> list[str]:
        return await asyncio.gather(*(one(name) for name in "abab"))

    assert asyncio.run(run()) == list("abab")
    assert sorted(server.loads) == ["a", "a", "b", "b"]


def test_scores_counts_and_ids_are_the_adapters_too(server: LoraServer) -> None:
    worn = rack_on(server, 1).wearing("a")
    assert worn.count("hello") == 2
    assert run_encode(worn) == [5, 6]
    assert worn.score("hello", "xx").model == "a"
    assert server.loads == ["a"]


def run_encode(worn: VLLM) -> list[int]:
    return asyncio.run(worn.aencode("hello"))


def test_what_another_rack_has_loaded_is_worn(server: LoraServer) -> None:
    assert rack_on(server, 1).wearing("a").generate("hello").text == "a"
    assert rack_on(server, 1).wearing("a").generate("hello").text == "a"
    assert server.loads == ["a"]


def test_another_adapter_of_the_same_name_is_not_taken_for_ours(server: LoraServer) -> None:
    server.loaded["a"] = "/theirs/a"
    with pytest.raises(ModelRefused, match=r"another adapter 'a' already, from /theirs/a, not /adapters/a; .*rag adapters unload a"):
        rack_on(server, 1).wearing("a").generate("hello")


def test_what_others_have_unloaded_makes_no_trouble(server: LoraServer) -> None:
    rack = rack_on(server, 1)
    rack.wearing("a").generate("hello")
    server.restart()
    assert rack.wearing("b").generate("hello").text == "b"


def test_one_error_reaches_all_that_wait_and_the_next_call_tries_again(server: LoraServer) -> None:
    folders = {"a": "/nowhere"}
    rack = Rack(model(server), 1, folders=folders)

    async def run() -> list[Any]:
        return await asyncio.gather(*(rack.wearing("a").agenerate("hello") for _ in range(3)), return_exceptions=True)

    errors = asyncio.run(run())
    assert {type(error) for error in errors} == {ModelRefused}
    assert all("No adapter found for /nowhere" in str(error) for error in errors)
    folders["a"] = "/adapters/a"
    assert rack.wearing("a").generate("hello").text == "a"


def test_unknown_names_and_bad_options(server: LoraServer) -> None:
    with pytest.raises(AdapterError, match="there is no adapter 'x' on this rack; there are: a, b, c, d, e"):
        rack_on(server, 1).wearing("x").generate("hello")
    with pytest.raises(InputError, match="slots is at least 1"):
        rack_on(server, 0)
    with pytest.raises(InputError, match="patience"):
        rack_on(server, 1, patience=0.0)
    with pytest.raises(InputError):
        rack_on(server, 1).wearing("a").generate("")
    with pytest.raises(InputError):
        rack_on(server, 1).wearing("a").generate("hello", Sampling(max_tokens=0))
    assert server.loads == []
