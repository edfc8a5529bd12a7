from __future__ import annotations

import asyncio

import pytest

from rag.core.errors import InputError
from rag.serve.admission import Admission
from rag.serve.errors import RequestError


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def hold(admission: Admission, log: list[int], number: int, leave: asyncio.Event) -> None:
    async with admission.turn():
        log.append(number)
        await leave.wait()


def test_first_come_first_served_within_the_bound() -> None:
    async def scenario() -> None:
        admission, log = Admission(2, 3), []
        leaves = [asyncio.Event() for _ in range(5)]
        tasks = [asyncio.create_task(hold(admission, log, number, leaves[number])) for number in range(5)]
        await settled()
        assert log == [0, 1]
        assert (admission.running, admission.waiting) == (2, 3)
        leaves[1].set()
        await settled()
        assert log == [0, 1, 2]
        assert (admission.running, admission.waiting) == (2, 2)
        for leave in leaves:
            leave.set()
        await asyncio.gather(*tasks)
        assert log == [0, 1, 2, 3, 4]
        assert (admission.running, admission.waiting) == (0, 0)

    asyncio.run(scenario())


def test_who_finds_the_queue_full_is_told_when_to_come_again() -> None:
    async def scenario() -> None:
        admission, leave = Admission(1, 1), asyncio.Event()
        tasks = [asyncio.create_task(hold(admission, [], number, leave)) for number in range(2)]
        await settled()
        with pytest.raises(RequestError) as refused:
            async with admission.turn():
                pass
        assert (refused.value.status, refused.value.code) == (429, "queue_full")
        assert int(refused.value.headers["Retry-After"]) >= 1
        assert admission.refused == 1
        leave.set()
        await asyncio.gather(*tasks)
        async with admission.turn():
            assert admission.running == 1

    asyncio.run(scenario())


def test_who_leaves_the_queue_takes_no_place() -> None:
    async def scenario() -> None:
        admission, leave, log = Admission(1, 5), asyncio.Event(), []
        first = asyncio.create_task(hold(admission, log, 0, leave))
        await settled()
        second, third = (asyncio.create_task(hold(admission, log, number, leave)) for number in (1, 2))
        await settled()
        second.cancel()
        await settled()
        assert admission.waiting == 1
        leave.set()
        await asyncio.gather(first, third)
        assert log == [0, 2]
        assert admission.running == 0

    asyncio.run(scenario())


def test_a_turn_that_comes_to_one_who_is_leaving_goes_on_to_the_next() -> None:
    async def scenario() -> None:
        admission, leave, log = Admission(1, 5), asyncio.Event(), []
        first = asyncio.create_task(hold(admission, log, 0, leave))
        await settled()
        second = asyncio.create_task(hold(admission, log, 1, leave))
        third = asyncio.create_task(hold(admission, log, 2, leave))
        await settled()
        leave.set()
        await asyncio.sleep(0)  # the first gives its place to the second, which has not noticed yet
        second.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
        assert 2 in log
        assert (admission.running, admission.waiting) == (0, 0)

    asyncio.run(scenario())


def test_an_error_within_a_turn_frees_the_place() -> None:
    async def scenario() -> None:
        admission = Admission(1, 0)
        with pytest.raises(ValueError, match="x"):
            async with admission.turn():
                raise ValueError("x")
        assert admission.running == 0

    asyncio.run(scenario())


def test_the_time_to_stay_away_follows_the_pace() -> None:
    async def scenario() -> None:
        admission = Admission(2, 100)
        assert admission.retry_after() == 1
        admission._learn(30.0)
        assert admission.retry_after() == 15
        for _ in range(100):
            admission._learn(1e6)
        assert admission.retry_after() == 60

    asyncio.run(scenario())


@pytest.mark.parametrize(("running", "waiting"), [(0, 1), (-1, 1), (1, -1)])
def test_bounds_are_checked(running: int, waiting: int) -> None:
    with pytest.raises(InputError):
        Admission(running, waiting)
