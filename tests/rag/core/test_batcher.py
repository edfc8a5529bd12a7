"""Calls of many coroutines become few batches, and no call is lost, mixed up or stuck."""

from __future__ import annotations

import asyncio
import threading
import weakref

import pytest

from rag.core.batcher import Batcher
from rag.core.errors import InputError, RunError


def test_concurrent_calls_form_batches_in_order() -> None:
    batches: list[list[int]] = []
    gate = threading.Event()

    def work(items: list[int]) -> list[int]:
        gate.wait(5)
        batches.append(items)
        return [item * 10 for item in items]

    async def scenario() -> list[int]:
        batcher = Batcher(work, max_batch=8)
        calls = [asyncio.create_task(batcher(i)) for i in range(20)]
        await asyncio.sleep(0.05)
        gate.set()
        return list(await asyncio.gather(*calls))

    assert asyncio.run(scenario()) == [i * 10 for i in range(20)]
    assert [item for batch in batches for item in batch] == list(range(20))
    assert max(map(len, batches)) == 8
    assert len(batches) <= 5


def test_only_equal_keys_share_a_batch() -> None:
    batches: list[list[str]] = []
    gate = threading.Event()

    def work(items: list[str]) -> list[str]:
        gate.wait(5)
        batches.append(items)
        return items

    async def scenario() -> None:
        batcher = Batcher(work, key=lambda item: item[0])
        calls = [asyncio.create_task(batcher(i)) for i in ["a1", "a2", "b1", "b2", "a3"]]
        await asyncio.sleep(0.05)
        gate.set()
        assert await asyncio.gather(*calls) == ["a1", "a2", "b1", "b2", "a3"]

    asyncio.run(scenario())
    assert all(len({item[0] for item in batch}) == 1 for batch in batches)


def test_an_error_reaches_every_call_of_its_batch_and_the_batcher_goes_on() -> None:
    def work(items: list[int]) -> list[float]:
        return [1 / item for item in items]

    async def scenario() -> None:
        batcher = Batcher(work, max_batch=1)
        results = await asyncio.gather(batcher(1), batcher(0), batcher(2), return_exceptions=True)
        assert results[0] == 1
        assert isinstance(results[1], ZeroDivisionError)
        assert results[2] == 0.5

    asyncio.run(scenario())


def test_a_wrong_number_of_results_is_an_error() -> None:
    async def scenario() -> None:
        with pytest.raises(RunError, match="1 items went in and 0 results came out"):
            await Batcher(lambda items: [], name="odd")(1)

    asyncio.run(scenario())


def test_a_cancelled_call_is_left_out_and_harms_nobody() -> None:
    seen: list[int] = []
    gate = threading.Event()

    def work(items: list[int]) -> list[int]:
        gate.wait(5)
        seen.extend(items)
        return items

    async def scenario() -> None:
        batcher = Batcher(work, max_batch=1)
        calls = [asyncio.create_task(batcher(i)) for i in range(4)]
        await asyncio.sleep(0.05)
        calls[2].cancel()
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert results[0] == 0
        assert results[3] == 3
        assert isinstance(results[2], asyncio.CancelledError)

    asyncio.run(scenario())
    assert 2 not in seen


def test_it_serves_several_event_loops() -> None:
    batcher = Batcher(lambda items: items)

    async def call(item: int) -> int:
        return await batcher(item)

    assert [asyncio.run(call(i)) for i in range(3)] == [0, 1, 2]


def test_a_full_queue_makes_callers_wait() -> None:
    async def scenario() -> list[int]:
        batcher = Batcher(lambda items: items, max_batch=2, max_pending=2)
        return list(await asyncio.gather(*(batcher(i) for i in range(50))))

    assert asyncio.run(scenario()) == list(range(50))


def test_close_finishes_what_is_queued_and_refuses_more() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda items: items)
        assert await batcher(1) == 1
        batcher.close()
        with pytest.raises(RunError, match="closed"):
            await batcher(2)

    asyncio.run(scenario())
    with pytest.raises(InputError, match="max_batch"):
        Batcher(lambda items: items, max_batch=0)


def test_a_call_that_meets_the_close_is_answered_or_refused_and_never_forgotten() -> None:
    async def scenario() -> None:
        gate = threading.Event()

        def work(items: list[int]) -> list[int]:
            gate.wait(5)
            return items

        batcher = Batcher(work, max_batch=1, max_pending=1)
        calls = [asyncio.create_task(batcher(i)) for i in range(4)]  # one at work, one queued, two that wait for room
        await asyncio.sleep(0.05)
        batcher.close()
        gate.set()
        results = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)
        answered = [result for result in results if isinstance(result, int)]
        assert answered == [0, 1]
        assert all(isinstance(result, RunError) for result in results[2:])

    asyncio.run(scenario())


def test_an_idle_worker_ends_and_lets_go_of_what_it_worked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rag.core.batcher._IDLE", 0.01)

    class Model:
        def work(self, items: list[int]) -> list[int]:
            return items

    async def call(batcher: Batcher[int, int]) -> int:
        return await batcher(1)

    model = Model()
    batcher: Batcher[int, int] = Batcher(model.work, name="leaving")
    assert asyncio.run(call(batcher)) == 1
    for thread in [thread for thread in threading.enumerate() if thread.name == "graft-leaving"]:
        thread.join(5)
    assert not [thread for thread in threading.enumerate() if thread.name == "graft-leaving"]
    assert asyncio.run(call(batcher)) == 1  # the next call starts another
    for thread in [thread for thread in threading.enumerate() if thread.name == "graft-leaving"]:
        thread.join(5)
    known = weakref.ref(model)
    del model, batcher
    assert known() is None


def test_a_key_that_fails_fails_its_own_call_only() -> None:
    async def scenario() -> None:
        batcher = Batcher(lambda items: items, key=lambda item: 1 // item)
        with pytest.raises(ZeroDivisionError):
            await batcher(0)
        assert await asyncio.wait_for(batcher(1), 5) == 1

    asyncio.run(scenario())
