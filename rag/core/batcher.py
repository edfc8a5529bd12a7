"""Gathers the calls of all questions in flight into one batch.

A method is written for one question; encoders, indices, rerankers and local models sit behind a `Batcher`. While one batch is being
worked on, new calls pile up and form the next, so a batch grows with the load and a lone call waits for nobody.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from rag.core.errors import InputError, RunError

X = TypeVar("X")
Y = TypeVar("Y")

_IDLE = 5.0
"""Seconds without a call after which a worker ends; the next call starts another. A worker for ever would keep its model in memory for
ever, long after the last reference to it is gone."""


class Batcher(Generic[X, Y]):
    """``await batcher(item)`` from any number of coroutines and event loops; ``work(items) -> results`` runs in one worker thread.

    Items are batched only with those of an equal ``key`` (settings that must agree within a batch). ``max_batch`` bounds a batch;
    ``max_pending`` bounds the queue, beyond which a call waits (backpressure, not memory). If ``work`` raises, every call of that batch
    gets the error; the batcher goes on. A cancelled call is left out if its batch has not begun.
    """

    def __init__(
        self,
        work: Callable[[list[X]], Sequence[Y]],
        *,
        max_batch: int = 64,
        max_pending: int = 10_000,
        name: str = "batcher",
        key: Callable[[X], Hashable] | None = None,
    ) -> None:
        if max_batch < 1:
            raise InputError(f"{name}: max_batch must be at least 1, not {max_batch}")
        self.work = work
        self.max_batch = max_batch
        self.name = name
        self.key = key
        self._queue: queue.Queue[_Call[X, Y]] = queue.Queue(max_pending)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def __call__(self, item: X) -> Y:
        """Return the result for ``item``."""
        call = _Call[X, Y](item, self.key(item) if self.key else None)
        while not self._put(call):
            await asyncio.sleep(0.005)
        return await asyncio.wrap_future(call.future)

    def close(self) -> None:
        """Stop the worker once it has finished what is queued. Later calls raise `RunError`."""
        with self._lock:
            self._closed = True

    def _put(self, call: _Call[X, Y]) -> bool:
        """Queue ``call`` and see that a worker is there; False if the queue is full. One step under the lock, so that a worker that ends
        leaves no call behind."""
        with self._lock:
            if self._closed:
                raise RunError(f"{self.name} is closed")
            try:
                self._queue.put_nowait(call)
            except queue.Full:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=f"graft-{self.name}", daemon=True)
                self._thread.start()
            return True

    def _loop(self) -> None:
        call = self._next()
        while call is not None:
            held = self._serve(call)
            call = None  # while it waits, a worker holds nobody's item
            call = held or self._next()

    def _serve(self, first: _Call[X, Y]) -> _Call[X, Y] | None:
        """Work on ``first`` and what follows it in the queue; return the call with which the next batch begins, if it was taken already."""
        batch = [first]
        held = None
        while len(batch) < self.max_batch:
            try:
                following = self._queue.get_nowait()
            except queue.Empty:
                break
            if following.kind != first.kind:
                held = following  # order is kept
                break
            batch.append(following)
        self._run(batch)
        return held

    def _next(self) -> _Call[X, Y] | None:
        """The next call, or None when the worker should end."""
        while True:
            try:
                return self._queue.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if self._queue.empty():
                        self._thread = None
                        return None

    def _run(self, batch: list[_Call[X, Y]]) -> None:
        live = [call for call in batch if call.future.set_running_or_notify_cancel()]
        if not live:
            return
        try:
            results = self.work([call.item for call in live])
            if len(results) != len(live):
                raise RunError(f"{self.name}: {len(live)} items went in and {len(results)} results came out")
        except BaseException as error:
            for call in live:
                call.future.set_exception(error)
            return
        for call, result in zip(live, results, strict=True):
            call.future.set_result(result)


class _Call(Generic[X, Y]):
    """One item, its kind (what must agree within a batch), and who waits for it."""

    def __init__(self, item: X, kind: Hashable) -> None:
        self.item = item
        self.kind = kind
        self.future: Future[Y] = Future()
