"""Whether the server can answer now."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rag.core.errors import GraftError, MissingCapability
from rag.serve.inspection import corpora_of, models_of

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline
    from rag.core.protocols import LanguageModel, Retriever
    from rag.serve.engine_state import Engine

log = logging.getLogger("graft.serve")

PROBE_SECONDS = 5.0
FRESH_SECONDS = 2.0
"""An answer younger than this is given again, so that the open route cannot be used to keep the model server busy."""


class Health:
    """Asks every model to count the tokens of one word, and every corpus for its size. ``engine``: the model server that we run ourselves;
    while it is not ready, nobody is asked."""

    def __init__(self, pipelines: Mapping[str, Pipeline], engine: Engine | None = None) -> None:
        self._engine = engine
        self._models = list({id(m): m for p in pipelines.values() for m in models_of(p)}.values())
        self._corpora = list({id(c): c for p in pipelines.values() for c in corpora_of(p)}.values())
        self._lock = asyncio.Lock()
        self._known: tuple[float, dict[str, Any]] | None = None

    async def warm(self, retriever: Retriever | None) -> None:
        """Load what is loaded on first use, so that it is not the first caller who waits. A failure shows at the next health check."""
        with suppress(Exception):
            await self.load(retriever)

    async def load(self, retriever: Retriever | None) -> None:
        """The same, but it raises the first failure, once all was tried."""
        failed: Exception | None = None
        for model in self._models:
            try:
                await model.acount("health")
            except MissingCapability:  # a server that counts no tokens; it is asked when a question comes
                continue
            except Exception as error:
                failed = failed or error
        try:
            filled = await asyncio.to_thread(lambda: sum(len(corpus) for corpus in self._corpora))
            if retriever is not None and filled:
                await retriever.asearch("health", k=1)
        except Exception as error:
            failed = failed or error
        if failed is not None:
            raise failed

    async def check(self) -> dict[str, Any]:
        """``{"status": "ok" | "unavailable", "passages", "models"}``; the reasons are in the log, not here."""
        if self._engine is not None and self._engine.state != "ready":
            self._known = None
            models = [{"type": type(model).__name__, "status": "unavailable"} for model in self._models]
            return {"status": "unavailable", "passages": 0, "models": models, "engine": self._engine.state}
        async with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > FRESH_SECONDS:
                models = await asyncio.gather(*(self._model(model) for model in self._models))
                passages, whole = await asyncio.to_thread(self._passages)
                ok = whole and all(entry["status"] == "ok" for entry in models)
                self._known = (time.monotonic(), {"status": "ok" if ok else "unavailable", "passages": passages, "models": models})
            return self._known[1]

    async def _model(self, model: LanguageModel) -> dict[str, str]:
        kind = type(model).__name__
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                await model.acount("health")
                return {"type": kind, "name": await asyncio.to_thread(lambda: model.name), "status": "ok"}
        except MissingCapability:  # a server that counts no tokens; it is asked when a question comes
            return {"type": kind, "name": await asyncio.to_thread(lambda: model.name), "status": "ok"}
        except Exception as error:  # whatever it is, the answer is the same
            log.warning("the model %s does not answer: %s: %s", kind, type(error).__name__, error)
            return {"type": kind, "status": "unavailable"}

    def _passages(self) -> tuple[int, bool]:
        try:
            return sum(len(corpus) for corpus in self._corpora), True
        except (GraftError, OSError) as error:
            log.warning("the corpus does not open: %s: %s", type(error).__name__, error)
            return 0, False
