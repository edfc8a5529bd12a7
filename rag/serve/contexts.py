"""Stores of contexts over HTTP, read-only: what one is, and one passage by its id.

`rag serve` has these routes for the stores that its pipelines read, and `rag contexts serve` has nothing else; both stand behind the same
doors. A passage comes as safetensors, as it is stored; `retrievers.context.remote` reads it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from rag.core.errors import CorpusDamaged, CorpusError
from rag.serve.admission import Admission
from rag.serve.contract import documented
from rag.serve.doors.lock import lock
from rag.serve.error_answers import answer_errors
from rag.serve.errors import RequestError, to_request_error
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.requests import Observed
from rag.serve.openai_answers import Whole
from rag.serve.openai_types import Strict
from rag.serve.query import parse_query
from rag.serve.settings import Doors, Limits
from retrievers.context.encoded import ModelIdentity

if TYPE_CHECKING:
    from retrievers.context.store import ContextStore

_STORE = {
    "name": "store",
    "in": "query",
    "description": "The name of a store; if it is left out, the first one.",
    "schema": {"type": "string"},
}
_ID = {"name": "id", "in": "query", "required": True, "description": "Of the passage.", "schema": {"type": "string", "minLength": 1}}
_TEXT = {"name": "text", "in": "query", "description": "The SHA-256 that its text must have.", "schema": {"type": "string"}}
_BYTES = {"application/octet-stream": {"type": "string", "contentMediaType": "application/octet-stream"}}


def contexts_app(store: ContextStore, *, limits: Limits = Limits(running=8), doors: Doors = Doors()) -> FastAPI:
    """An ASGI application that serves ``store`` alone; ``limits.running`` passages are read and sent at once.

    It has the `routes`, and ``GET /healthz``, which is open to all. Raises `InputError` and `ConfigError` for doors that cannot be made.
    """
    app = FastAPI(title="graft contexts", docs_url=None, redoc_url=None, openapi_url=None)

    async def health() -> Response:
        """200 as long as the store can be opened."""
        try:
            return JSONResponse({"status": "ok", "passages": await asyncio.to_thread(len, store)})
        except CorpusError as error:
            raise RequestError(503, "the store of contexts cannot be read", type="server_error", code="corpus_error") from error

    app.include_router(routes(Stores([store]), Admission(limits.running, limits.waiting)))
    app.get("/healthz", response_model=None)(health)
    answer_errors(app)
    lock(app, doors)
    app.add_middleware(Observed, metrics=Metrics({}))
    return app


def routes(stores: Stores, admission: Admission) -> APIRouter:
    """The router; passages are read and sent by turns of ``admission``.

    ``GET /v1/contexts`` tells what a store is, ``GET /v1/contexts/passage?id=ID&text=HASH`` gives one passage: 404 if there is none
    (code "absent"), 409 if the text that was encoded has another hash ("changed"), 500 if it cannot be read ("damaged"). An id is part of
    the query, because it may hold what a path would be read by. ``store=NAME`` names one of several stores; 404 without any.
    """
    router, group = APIRouter(), _Contexts(stores, admission)
    told = documented("Tell what a store of contexts is", gives={200: StoreShown}, errors=(400, 404, 500), parameters=[_STORE])
    errors = (400, 404, 409, 429, 500)
    one = documented("Fetch an encoded passage", gives={200: _BYTES}, errors=errors, parameters=[_ID, _TEXT, _STORE])
    router.get("/v1/contexts", response_model=None, openapi_extra=told)(group.described)
    router.get("/v1/contexts/passage", response_model=None, openapi_extra=one)(group.passage)
    return router


class StoreShown(BaseModel):
    """A store: whose numbers it has, in which format and with what relative error, and how much there is; not where it lies. ``stores``
    are the names of all."""

    object: Literal["contexts"]
    store: str
    stores: list[str]
    model: ModelIdentity
    format: str
    passages: Whole
    tokens: Whole
    complete: bool
    error_keys: float
    error_values: float


class Which(Strict):
    """The store that is asked."""

    store: str | None = None


class Wanted(Which):
    """The passage that is asked for."""

    id: str = Field(min_length=1)
    text: str | None = None


class Stores:
    """Stores by the names of their folders (of two such the second is "NAME-2"), each opened when it is first asked for. Blocking.

    ``found`` are folders and open stores; what lies in one folder is one store.
    """

    def __init__(self, found: Iterable[str | ContextStore]) -> None:
        self._found: dict[str, str | ContextStore] = {}
        self._lock = threading.Lock()
        seen: set[Path] = set()
        for one in found:
            folder = Path(one if isinstance(one, str) else one.folder).resolve()
            if folder not in seen:
                seen.add(folder)
                name, number = folder.name, 1
                while name in self._found:
                    name, number = f"{folder.name}-{number + 1}", number + 1
                self._found[name] = one

    @property
    def names(self) -> list[str]:
        """All that there are, the first one first."""
        return list(self._found)

    def open(self, name: str | None) -> tuple[str, ContextStore]:
        """The store ``name`` (None: the first), with its name. Raises `RequestError` (404), and `CorpusError` if it cannot be opened."""
        with self._lock:
            if not self._found:
                raise RequestError(404, "no pipeline of this server reads a store of contexts", code="not_found")
            name = self.names[0] if name is None else name
            one = self._found.get(name)
            if one is None:
                raise RequestError(404, f"there is no store '{name[:80]}'; this server has: {', '.join(self.names)}", code="not_found")
            if isinstance(one, str):
                from retrievers.context.store import ContextStore

                one = self._found[name] = ContextStore(one, ram_bytes=0)
            return name, one


@dataclass(frozen=True)
class _Contexts:
    stores: Stores
    admission: Admission

    async def described(self, request: Request) -> Response:
        """What a store is."""
        asked = parse_query(Which, request)
        try:
            return await asyncio.to_thread(self._described, asked.store)
        except CorpusError as error:
            raise to_request_error(error) from error

    async def passage(self, request: Request) -> Response:
        """One passage, checked when it is read."""
        asked = parse_query(Wanted, request)
        async with self.admission.turn("requests"):
            try:
                return await asyncio.to_thread(self._read, asked)
            except CorpusError as error:
                raise to_request_error(error) from error

    def _described(self, name: str | None) -> Response:
        name, store = self.stores.open(name)
        info = store.info()
        shown = {field: info[field] for field in ("format", "passages", "tokens", "complete", "error_keys", "error_values")}
        known = {"object": "contexts", "store": name, "stores": self.stores.names, "model": asdict(store.model)}
        return JSONResponse({**known, **shown})

    def _read(self, asked: Wanted) -> Response:
        from retrievers.context.wire import LABEL, SAFETENSORS, Label, written

        _, store = self.stores.open(asked.store)
        while True:
            state = store.state()
            place = state.places.get(asked.id)
            if place is None and state.broken:
                raise _unreadable()
            if place is None:
                raise RequestError(404, "there is no passage of this id", code="absent")
            segment, row = place
            entry = segment.entries[row]
            if asked.text not in (None, entry.text):
                raise RequestError(409, "the passage of this id was encoded from another text", code="changed")
            try:
                body = written(segment.load(row))
            except CorpusDamaged as error:
                if store.state() is state:  # else a writer took the segment away
                    to_request_error(error)  # for the log: callers are not told paths
                    raise _unreadable() from error
                continue
            label = Label(store.model, entry.text, entry.sha256)
            return Response(body, media_type=SAFETENSORS, headers={LABEL: label.header()})


def _unreadable() -> RequestError:
    return RequestError(500, "what is stored of this passage cannot be read", type="server_error", code="damaged")
