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
        self._queue: queue.Queue[tuple[X, Future[Y]] | None] = queue.Queue(max_pending)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    async def __call__(self, item: X) -> Y:
        """Return the result for ``item``."""
        future: Future[Y] = Future()
        self._start()
        while True:
            try:
                self._queue.put_nowait((item, future))
                break
            except queue.Full:
                await asyncio.sleep(0.005)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Stop the worker once it has finished what is queued. Later calls raise `RunError`."""
        with self._lock:
            self._closed = True
            if self._thread is not None:
                self._queue.put(None)

    def _start(self) -> None:
        with self._lock:
            if self._closed:
                raise RunError(f"{self.name} is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name=f"graft-{self.name}", daemon=True)
                self._thread.start()

    def _loop(self) -> None:
        held: tuple[X, Future[Y]] | None = None
        while True:
            first = held or self._queue.get()
            held = None
            if first is None:
                return
            batch = [first]
            kind = self.key(first[0]) if self.key else None
            stop = False
            while len(batch) < self.max_batch:
                try:
                    following = self._queue.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    stop = True
                    break
                if self.key and self.key(following[0]) != kind:
                    held = following  # order is kept: the next batch begins with it
                    break
                batch.append(following)
            self._run(batch)
            if stop:
                return

    def _run(self, batch: list[tuple[X, Future[Y]]]) -> None:
        live = [(item, future) for item, future in batch if future.set_running_or_notify_cancel()]
        if not live:
            return
        try:
            results = self.work([item for item, _ in live])
            if len(results) != len(live):
                raise RunError(f"{self.name}: {len(live)} items went in and {len(results)} results came out")
        except BaseException as error:
            for _, future in live:
                future.set_exception(error)
            return
        for (_, future), result in zip(live, results, strict=True):
            future.set_result(result)
