"""Work that outlives its request: it is queued, tells how far it is, can be cancelled, and is remembered when it is done."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal

from rag.core.errors import InputError
from rag.serve.errors import RequestError, to_request_error
from rag.serve.waiting import GivenUp, unless

Status = Literal["queued", "running", "done", "failed", "cancelled"]
RETRY_SECONDS = 10


class Progress:
    """How far a job is: ``done`` of ``total`` (None while nobody knows) in ``unit``. ``result`` is what stands if the job ends early."""

    def __init__(self, unit: str, total: int | None) -> None:
        self.unit = unit
        self.total = total
        self.done = 0
        self.result: dict[str, Any] | None = None
        self.changed = asyncio.Event()
        """Set at the next change; take it before you look at the rest, and no change is missed."""

    def update(self, *, done: int | None = None, total: int | None = None, result: dict[str, Any] | None = None) -> None:
        """Set what is given. Call it in the event loop; whoever watches the job hears of it."""
        self.done = self.done if done is None else done
        self.total = self.total if total is None else total
        self.result = self.result if result is None else result
        self.changed.set()
        self.changed = asyncio.Event()


Work = Callable[[Progress], Awaitable[dict[str, Any]]]


@dataclass(slots=True)
class Job:
    """One piece of work and what became of it. Times are seconds since 1970."""

    kind: str
    progress: Progress
    status: Status = "queued"
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None
    id: str = field(default_factory=lambda: f"job-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    finished: int | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing will change any more."""
        return self.finished is not None

    def describe(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        progress = self.progress
        return {
            "object": "job",
            "id": self.id,
            "kind": self.kind,
            "status": self.status,
            "progress": {"done": progress.done, "total": progress.total, "unit": progress.unit},
            "result": self.result,
            "error": self.error,
            "created": self.created,
            "finished": self.finished,
        }

    def end(self, status: Status, result: dict[str, Any] | None, error: dict[str, Any] | None = None) -> None:
        """Set the last state, and tell whoever watches."""
        self.status, self.result, self.error = status, result, error
        self.finished = int(time.time())
        self.progress.update()


class Jobs:
    """Runs the jobs of one kind one after the other, in the order they came, and different kinds side by side.

    ``waiting`` bounds the queue, ``kept`` how many ended jobs are remembered, in memory, the oldest forgotten first, and ``listeners``
    those who watch. For use within one event loop. Close it when the server stops.
    """

    def __init__(self, *, waiting: int = 100, kept: int = 1_000, listeners: int = 100) -> None:
        for name, value in (("waiting", waiting), ("kept", kept), ("listeners", listeners)):
            if value < 1:
                raise InputError(f"{name} must be at least 1, not {value}")
        self._waiting = waiting
        self._kept = kept
        self._most_listeners = listeners
        self._listeners = 0
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[dict[str, Any]]] = {}
        self._ended: deque[str] = deque()
        self._closed = False

    def start(
        self, kind: str, work: Work, *, unit: str = "steps", total: int | None = None, after: Callable[[], object] = lambda: None
    ) -> Job:
        """Queue ``work``, which gets a `Progress` and returns the result; ``after`` is called once it has ended, in whatever way.

        Raises what `check_room` does.
        """
        self.check_room()
        job = Job(kind, Progress(unit, total))
        self._jobs[job.id] = job
        task = asyncio.get_running_loop().create_task(self._run(job, work))
        self._tasks[job.id] = task
        task.add_done_callback(lambda task: self._end(job, task, after))
        return job

    def check_room(self) -> None:
        """Raise `RequestError` unless a job can be queued now: 429 if the queue is full, 503 if the server stops."""
        if self._closed:
            raise RequestError(503, "the server is shutting down", type="server_error", code="shutting_down")
        queued = sum(self._jobs[id].status == "queued" for id in self._tasks)
        if queued >= self._waiting:
            raise RequestError(
                429,
                f"{queued} jobs wait for their turn, which is all this server takes; try again in {RETRY_SECONDS} s",
                type="rate_limit_error",
                code="queue_full",
                retry_after=RETRY_SECONDS,
            )

    def get(self, id: str) -> Job:
        """The job of that id. Raises `RequestError` (404)."""
        job = self._jobs.get(id)
        if job is None:
            raise RequestError(404, f"there is no job {id[:80]!r}; it may have been forgotten: {self._kept:,} are kept", code="not_found")
        return job

    def all(self) -> list[Job]:
        """All that are remembered, the newest first."""
        return list(reversed(self._jobs.values()))

    async def cancel(self, id: str, *, patience: float = 5.0) -> Job:
        """Stop a job; one that has ended stays as it is. Returns when it has stopped, or after ``patience`` seconds while it still finishes
        a step that is not left half done. Raises `RequestError` (404)."""
        job, task = self.get(id), self._tasks.get(id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=patience)
        return job

    def check_listeners(self) -> None:
        """Raise `RequestError` (429) if as many watch as may."""
        if self._listeners >= self._most_listeners:
            raise RequestError(
                429,
                f"{self._listeners} callers watch jobs, which is all this server takes; ask for the job itself now and then",
                type="rate_limit_error",
                code="too_many_listeners",
                retry_after=RETRY_SECONDS,
            )

    async def watch(self, job: Job, stop: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[dict[str, Any], None]:
        """The job as plain data, now and after each change, until it has ended or ``stop`` returns.

        Changes that come faster than they are read are joined; how it ended is never left out.
        """
        self._listeners += 1
        try:
            while True:
                changed, last = job.progress.changed, job.ended
                yield job.describe()
                if last:
                    return
                await unless(stop(), changed.wait())
        except GivenUp:
            return
        finally:
            self._listeners -= 1

    async def close(self) -> None:
        """Take no more jobs, cancel all, and wait until they have stopped."""
        self._closed = True
        tasks = set(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, job: Job, work: Work) -> dict[str, Any]:
        async with self._turns[job.kind]:
            job.status = "running"
            job.progress.update()
            return await work(job.progress)

    def _end(self, job: Job, task: asyncio.Task[dict[str, Any]], after: Callable[[], object]) -> None:
        del self._tasks[job.id]
        if task.cancelled():
            job.end("cancelled", job.progress.result)
        elif error := task.exception():
            job.end("failed", job.progress.result, to_request_error(error).body()["error"])
        else:
            job.end("done", task.result())
        self._ended.append(job.id)
        while len(self._ended) > self._kept:
            del self._jobs[self._ended.popleft()]
        after()
