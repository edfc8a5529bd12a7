"""The server: OpenAI's chat completions in front of a pipeline, and its retriever on a route of its own.

The routes are in `rag.serve.routes`. No page of documentation is served: every route but ``/healthz`` asks for the key, if there is one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.core.protocols import Retriever
from rag.serve.adapters import SEPARATOR, Adapters, Slots
from rag.serve.admission import Admission
from rag.serve.asking import Asking
from rag.serve.breaker import Breaker
from rag.serve.errors import RequestError, to_request_error
from rag.serve.health import Health
from rag.serve.inspection import retriever_of
from rag.serve.limits import BearerKey
from rag.serve.routes import adapters as adapter_routes
from rag.serve.routes import chat, retrieve, state
from rag.serve.service import Service

if TYPE_CHECKING:
    from adapters.registry import Registry


@dataclass(frozen=True)
class Limits:
    """What one server takes on."""

    running: int = 64
    """Questions that are answered at once."""
    waiting: int = 128
    """Questions that wait for their turn; further ones are sent away."""
    seconds: float = 300.0
    """The longest that an answer may take, waiting included."""
    drain: float = 25.0
    """Seconds that a running stream may go on after SIGTERM."""


def create_app(
    pipeline: Pipeline | Mapping[str, Pipeline],
    *,
    retriever: Retriever | None = None,
    api_key: str | None = None,
    adapters: Registry | None = None,
    slots: Slots = Slots(),
    limits: Limits = Limits(),
) -> FastAPI:
    """An ASGI application that serves ``pipeline`` under the model name "graft", or several under their own names.

    ``retriever`` answers ``/v1/retrieve``; if None, the first pipeline's own retriever does. ``api_key``: every request but a health check
    must carry it. ``adapters`` are offered as models "pipeline:adapter"; ``slots`` tells what the vLLM server allows of them. Raises
    `InputError` for an empty key, no pipeline or a name with ":", and `GraphError` if a pipeline is not complete.
    """
    if api_key is not None and not api_key.strip():
        raise InputError("the API key is empty; leave it out to serve without one")
    pipelines = dict(pipeline) if isinstance(pipeline, Mapping) else {"graft": pipeline}
    if not pipelines:
        raise InputError("there is no pipeline to serve")
    for name, one in pipelines.items():
        if not name or SEPARATOR in name:
            raise InputError(f"a pipeline is served under a name without '{SEPARATOR}', not {name!r}")
        _ = one.plan  # an incomplete graph fails now, not at the first question
    asking = Asking(Admission(limits.running, limits.waiting), Breaker, limits.seconds, limits.drain)
    worn = Adapters(pipelines, adapters, slots) if adapters is not None else None
    service = Service(pipelines, retriever or retriever_of(next(iter(pipelines.values()))), Health(pipelines), asking, worn)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Models and indices load while the first health checks already answer (503 until they are there)."""
        warming = asyncio.create_task(service.health.warm(service.retriever))
        yield
        warming.cancel()

    app = FastAPI(title="graft", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    if api_key is not None:
        app.add_middleware(BearerKey, key=api_key)
    for group in (chat, retrieve, state):
        app.include_router(group.routes(service))
    if worn is not None:
        app.include_router(adapter_routes.routes(worn))
    app.add_exception_handler(RequestError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    return app


async def _answer_error(request: Request, error: Exception) -> Response:
    known = to_request_error(error)
    return JSONResponse(known.body(), known.status, known.headers)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "internal error")
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    message = f"{request.method} {request.url.path}: {detail}" if status in (404, 405) else str(detail)
    return JSONResponse(RequestError(status, message, code=code).body(), status)
