"""The sync face over the async core: one background event loop for the whole process.

Pooled connections belong to the loop that opened them, so blocking calls from any thread, notebook cells included, share this one loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from rag.core.errors import RunError

T = TypeVar("T")

_GRACE = 5.0
"""Seconds that a cancelled coroutine gets for its clean-up before an interrupt goes on."""

_THREADS = 1_000
"""Worker threads of the loop, started as they are needed. A plain node may itself make a blocking call and so hold its thread until this
loop has found another one; asyncio's own bound of a few threads would let many questions in flight wait for each other for ever."""

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def background_loop() -> asyncio.AbstractEventLoop:
    """The shared loop, started on first use in a daemon thread."""
    global _loop, _thread
    with _lock:
        if _loop is None or not (_thread and _thread.is_alive()):
            _loop = asyncio.new_event_loop()
            _loop.set_default_executor(ThreadPoolExecutor(_THREADS, "graft-worker"))
            _thread = threading.Thread(target=_loop.run_forever, name="graft-loop", daemon=True)
            _thread.start()
        return _loop


def run_sync(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run ``coroutine`` on the background loop and wait for it. An interrupt (Ctrl-C) cancels it.

    Raises `RunError` when called on the background loop itself, where waiting would never end: await the ``a``-prefixed twin there.
    """
    loop = background_loop()
    if threading.current_thread() is _thread:
        coroutine.close()
        raise RunError(
            "a blocking call was made inside a coroutine of a pipeline; await its a-prefixed twin (arun, asearch, agenerate) instead"
        )
    ended = threading.Event()

    async def watched() -> T:
        try:
            return await coroutine
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(watched(), loop)
    try:
        return future.result()
    except BaseException:
        if future.cancel():
            ended.wait(_GRACE)  # a cancelled coroutine still cleans up; the caller must not touch what it holds before that
        raise


def iterate_sync(items: AsyncIterator[T]) -> Iterator[T]:
    """Iterate an async iterator from blocking code. Leaving the loop early closes the iterator."""

    async def step() -> tuple[bool, Any]:
        try:
            return True, await anext(items)
        except StopAsyncIteration:
            return False, None

    async def close() -> None:
        aclose = getattr(items, "aclose", None)
        if aclose is not None:
            await aclose()

    try:
        while True:
            more, item = run_sync(step())
            if not more:
                return
            yield item
    finally:
        run_sync(close())
