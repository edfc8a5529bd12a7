"""The configuration read again while the server runs: on SIGHUP, as other servers do."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping

from rag.core.errors import GraftError
from rag.core.pipeline import Pipeline
from rag.core.protocols import Retriever

log = logging.getLogger("graft.serve")

SECONDS = 600.0
"""How long the new models and indices may take until they answer."""

Pipelines = Pipeline | Mapping[str, Pipeline]
Source = Callable[[], tuple[Pipelines, Retriever | None]]
"""Builds the pipelines anew, with the retriever for those who only search (None: that of the first pipeline). It may block."""


class Reload:
    """Builds anew by ``source`` and hands that to ``take``, which tries it and puts it in the place of the old one, or raises.

    Whatever is wrong is one line in the log, and what was there goes on. One at a time: a signal that comes meanwhile is followed by
    one more.
    """

    def __init__(self, source: Source, take: Callable[[Pipelines, Retriever | None], Awaitable[None]], *, seconds: float = SECONDS) -> None:
        self._source = source
        self._take = take
        self._seconds = seconds
        self._wanted = asyncio.Event()

    async def follow(self) -> None:
        """Reload on each SIGHUP, until it is cancelled. Where there is no such signal (Windows, a server in a thread) it only waits."""
        loop = asyncio.get_running_loop()
        heard = hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread()
        if heard:
            loop.add_signal_handler(signal.SIGHUP, self._wanted.set)
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                await self.once()
        finally:
            if heard:
                loop.remove_signal_handler(signal.SIGHUP)

    async def once(self) -> bool:
        """Reload now; whether it went well."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._take(*await asyncio.to_thread(self._source))
        except Exception as error:
            log.error("the configuration was not reloaded, the old one goes on: %s", self._reason(error))
            return False
        log.info("the configuration was reloaded")
        return True

    def _reason(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"the new one did not answer within {self._seconds:g} s"
        text = " ".join(str(error).split())
        return text if isinstance(error, GraftError) else f"{type(error).__name__}: {text}"
