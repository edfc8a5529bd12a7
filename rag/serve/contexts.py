"""A store of contexts over HTTP, read-only: what it is, and one passage by its id.

It stands behind the same doors as `rag serve`. A passage comes as safetensors, as it is stored; `retrievers.context.remote` reads it.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from rag.core.errors import CorpusDamaged, CorpusError
from rag.serve.admission import Admission
from rag.serve.doors.lock import lock
from rag.serve.error_answers import answer_errors
from rag.serve.errors import RequestError, to_request_error
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.requests import Observed
from rag.serve.settings import Doors, Limits
from retrievers.context.wire import LABEL, PATH, SAFETENSORS, Label, written

if TYPE_CHECKING:
    from retrievers.context.store import ContextStore


def contexts_app(store: ContextStore, *, limits: Limits = Limits(running=8), doors: Doors = Doors()) -> FastAPI:
    """An ASGI application that serves ``store``; ``limits.running`` passages are read and sent at once.

    ``GET /v1/contexts`` tells what the store is, ``GET /v1/contexts/passage?id=ID&text=HASH`` gives one passage: 404 if there is none
    (code "absent"), 409 if the text that was encoded has another hash ("changed"), 500 if it cannot be read ("damaged"). An id is part of
    the query, because it may hold what a path would be read by. ``GET /healthz`` is open to all. Raises `InputError` and `ConfigError` for
    doors that cannot be made.
    """
    app = FastAPI(title="graft contexts", docs_url=None, redoc_url=None, openapi_url=None)
    served = _Contexts(store, Admission(limits.running, limits.waiting))
    app.get(PATH, response_model=None)(served.described)
    app.get(f"{PATH}/passage", response_model=None)(served.passage)
    app.get("/healthz", response_model=None)(served.health)
    answer_errors(app)
    lock(app, doors)
    app.add_middleware(Observed, metrics=Metrics({}))
    return app


@dataclass(frozen=True)
class _Contexts:
    store: ContextStore
    admission: Admission

    async def health(self) -> Response:
        """200 as long as the store can be opened."""
        try:
            return JSONResponse({"status": "ok", "passages": await asyncio.to_thread(len, self.store)})
        except CorpusError as error:
            raise RequestError(503, "the store of contexts cannot be read", type="server_error", code="corpus_error") from error

    async def described(self) -> Response:
        """The identity of the model, the number format, and how much there is; not where it lies."""
        info = await asyncio.to_thread(self.store.info)
        shown = {name: info[name] for name in ("format", "passages", "tokens", "complete", "error_keys", "error_values")}
        return JSONResponse({"object": "contexts", "model": asdict(self.store.model), **shown})

    async def passage(self, request: Request) -> Response:
        """One passage, checked when it is read."""
        ids, texts = request.query_params.getlist("id"), request.query_params.getlist("text")
        if len(ids) != 1 or len(texts) > 1 or not ids[0]:
            raise RequestError(400, "name one passage: ?id=ID, and &text=HASH if it must be of that text", code="invalid_value")
        async with self.admission.turn("requests"):
            try:
                label, body = await asyncio.to_thread(self._read, ids[0], texts[0] if texts else None)
            except CorpusError as error:
                raise to_request_error(error) from error
        return Response(body, media_type=SAFETENSORS, headers={LABEL: label.header()})

    def _read(self, id: str, text: str | None) -> tuple[Label, bytes]:
        while True:
            state = self.store.state()
            place = state.places.get(id)
            if place is None and state.broken:
                raise _unreadable()
            if place is None:
                raise RequestError(404, "there is no passage of this id", code="absent")
            segment, row = place
            entry = segment.entries[row]
            if text not in (None, entry.text):
                raise RequestError(409, "the passage of this id was encoded from another text", code="changed")
            try:
                return Label(self.store.model, entry.text, entry.sha256), written(segment.load(row))
            except CorpusDamaged as error:
                if self.store.state() is state:  # else a writer took the segment away
                    to_request_error(error)  # for the log: callers are not told paths
                    raise _unreadable() from error


def _unreadable() -> RequestError:
    return RequestError(500, "what is stored of this passage cannot be read", type="server_error", code="damaged")
