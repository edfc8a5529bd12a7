"""The queue of jobs: order, progress, cancelling, failures, and every bound."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rag.core.errors import CorpusDamaged, InputError, ReadError
from rag.serve.errors import RequestError
from rag.serve.jobs import Job, Jobs, Progress


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def ended(job: Job) -> Job:
    while not job.ended:
        await asyncio.sleep(0.001)
    return job


async def forever(progress: Progress) -> dict[str, Any]:
    await asyncio.Event().wait()
    return {}


async def quick(progress: Progress) -> dict[str, Any]:
    return {"n": 1}


def test_a_job_runs_tells_its_progress_and_is_remembered() -> None:
    async def work(progress: Progress) -> dict[str, Any]:
        for number in (1, 2):
            progress.update(done=number)
            await asyncio.sleep(0.01)
        return {"made": 2}

    async def scenario() -> None:
        jobs, calls = Jobs(), []
        job = jobs.start("compose", work, unit="adapters", total=2, after=lambda: calls.append("after"))
        assert job.describe() | {"created": 0} == {
            "object": "job",
            "id": job.id,
            "kind": "compose",
            "status": "queued",
            "progress": {"done": 0, "total": 2, "unit": "adapters"},
            "result": None,
            "error": None,
            "created": 0,
            "finished": None,
        }
        states = [state async for state in jobs.watch(job, asyncio.Event().wait)]
        assert [state["status"] for state in states][0::3] == ["queued", "done"]
        assert [state["progress"]["done"] for state in states] == sorted(state["progress"]["done"] for state in states)
        assert states[-1]["result"] == {"made": 2}
        assert states[-1]["finished"] >= states[-1]["created"] > 1_700_000_000
        assert jobs.get(job.id) is job
        assert calls == ["after"]

    run(scenario)


def test_one_kind_is_done_in_order_and_another_does_not_wait_for_it() -> None:
    async def scenario() -> None:
        jobs = Jobs()
        first, second, other = jobs.start("documents", forever), jobs.start("documents", quick), jobs.start("compose", quick)
        await ended(other)
        assert (first.status, second.status) == ("running", "queued")
        await jobs.cancel(first.id)
        await ended(second)
        assert (first.status, second.status) == ("cancelled", "done")
        assert [job.id for job in jobs.all()] == [other.id, second.id, first.id]

    run(scenario)


def test_a_queue_that_is_full_says_when_to_come_again() -> None:
    async def scenario() -> None:
        jobs = Jobs(waiting=2)
        running = jobs.start("a", forever)
        await asyncio.sleep(0)
        queued = [jobs.start("a", forever) for _ in range(2)]
        with pytest.raises(RequestError) as refused:
            jobs.start("a", quick)
        assert (refused.value.status, refused.value.headers) == (429, {"Retry-After": "10"})
        await jobs.cancel(queued[0].id)
        jobs.start("a", quick)
        await jobs.close()
        assert (running.status, queued[1].status) == ("cancelled", "cancelled")
        with pytest.raises(RequestError, match="shutting down"):
            jobs.start("a", quick)

    run(scenario)


@pytest.mark.parametrize("pauses", [0, 2], ids=["before it began", "while it runs"])
def test_a_cancelled_job_ends_once_and_keeps_what_it_had(pauses: int) -> None:
    async def work(progress: Progress) -> dict[str, Any]:
        progress.update(result={"so far": 3})
        return await forever(progress)

    async def scenario() -> None:
        jobs, calls = Jobs(), []
        job = jobs.start("a", work, after=lambda: calls.append(1))
        for _ in range(pauses):
            await asyncio.sleep(0)
        await jobs.cancel(job.id)
        assert (job.status, job.result) == ("cancelled", {"so far": 3} if pauses else None)
        await jobs.cancel(job.id)
        assert (job.status, calls) == ("cancelled", [1])

    run(scenario)


def test_cancelling_waits_no_longer_than_it_may() -> None:
    async def stubborn(progress: Progress) -> dict[str, Any]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.2)
            raise
        return {}

    async def scenario() -> None:
        jobs = Jobs()
        job = jobs.start("a", stubborn)
        await asyncio.sleep(0)
        assert (await jobs.cancel(job.id, patience=0.01)).status == "running"
        assert (await ended(job)).status == "cancelled"

    run(scenario)


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (ReadError("a.pdf: is protected by a password"), "invalid_value", "a.pdf: is protected"),
        (RequestError(507, "the disk is full", code="disk_full"), "disk_full", "the disk is full"),
        (CorpusDamaged("/srv/corpus is damaged"), "corpus_error", "cannot serve"),
        (RuntimeError("/srv/secret"), "internal_error", "internal error"),
    ],
)
def test_a_failure_tells_what_the_caller_may_know(error: Exception, code: str, shown: str) -> None:
    async def fails(progress: Progress) -> dict[str, Any]:
        progress.update(result={"written": 1})
        raise error

    async def scenario() -> None:
        jobs = Jobs()
        job = (await ended(jobs.start("a", fails))).describe()
        assert (job["status"], job["result"], job["error"]["code"]) == ("failed", {"written": 1}, code)
        assert shown in job["error"]["message"]
        assert "/srv" not in str(job)

    run(scenario)


def test_the_oldest_ended_jobs_are_forgotten() -> None:
    async def scenario() -> None:
        jobs = Jobs(kept=3)
        waiting = jobs.start("b", forever)
        ids = [(await ended(jobs.start("a", quick))).id for _ in range(5)]
        assert [job.id for job in jobs.all()] == [*reversed(ids[2:]), waiting.id]
        with pytest.raises(RequestError, match="no job"):
            jobs.get(ids[0])
        await jobs.close()

    run(scenario)


def test_a_slow_listener_misses_steps_but_never_the_end() -> None:
    async def scenario() -> None:
        jobs = Jobs()
        job = jobs.start("a", quick)
        states = jobs.watch(job, asyncio.Event().wait)
        assert (await anext(states))["status"] == "queued"
        await ended(job)  # while the listener still reads
        assert [state["status"] async for state in states] == ["done"]

    run(scenario)


def test_listeners_are_bounded_and_make_room_when_they_go() -> None:
    async def scenario() -> None:
        jobs = Jobs(listeners=1)
        job = jobs.start("a", forever)
        states = jobs.watch(job, asyncio.Event().wait)
        await anext(states)
        with pytest.raises(RequestError) as refused:
            jobs.check_listeners()
        assert refused.value.status == 429
        await states.aclose()
        jobs.check_listeners()
        await jobs.close()

    run(scenario)


def test_bounds_are_checked() -> None:
    with pytest.raises(InputError, match="waiting"):
        Jobs(waiting=0)
