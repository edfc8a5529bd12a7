"""The server: OpenAI's chat completions in front of a pipeline, and its retriever on a route of its own.

``POST /v1/chat/completions``, ``GET /v1/models``, ``POST /v1/retrieve``, ``GET /healthz``. No page of documentation is served: every route
but ``/healthz`` asks for the key, if there is one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from sse_starlette import EventSourceResponse
from starlette.exceptions import HTTPException

from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.core.protocols import Retriever
from rag.serve.chat import Completion, close, first_words, stream
from rag.serve.describe import describe_hit
from rag.serve.errors import RequestError, to_request_error
from rag.serve.health import Health
from rag.serve.inspection import retriever_of
from rag.serve.limits import BearerKey, read_body
from rag.serve.openai_types import ChatRequest, RetrieveRequest, checked_text, parse
from rag.serve.waiting import Drain, GivenUp, disconnected, unless

_GONE = 499  # nginx's status for a client that left; nobody reads it, the access log does


def create_app(
    pipeline: Pipeline | Mapping[str, Pipeline],
    *,
    retriever: Retriever | None = None,
    api_key: str | None = None,
    drain: float = 25.0,
) -> FastAPI:
    """An ASGI application that serves ``pipeline`` under the model name "graft", or several under their own names.

    ``retriever`` answers ``/v1/retrieve``; if None, the first pipeline's own retriever does. ``api_key``: every request but a health check
    must carry it. ``drain``: seconds that a running stream may go on after SIGTERM. Raises `InputError` for an empty key or no pipeline,
    and `GraphError` if a pipeline is not complete.
    """
    if api_key is not None and not api_key.strip():
        raise InputError("the API key is empty; leave it out to serve without one")
    pipelines = dict(pipeline) if isinstance(pipeline, Mapping) else {"graft": pipeline}
    if not pipelines:
        raise InputError("there is no pipeline to serve")
    for one in pipelines.values():
        _ = one.plan  # an incomplete graph fails now, not at the first question
    server = _Server(pipelines, retriever or retriever_of(next(iter(pipelines.values()))), drain)
    app = FastAPI(title="graft", docs_url=None, redoc_url=None, openapi_url=None, lifespan=server.lifespan)
    if api_key is not None:
        app.add_middleware(BearerKey, key=api_key)
    app.post("/v1/chat/completions", response_model=None)(server.chat)
    app.post("/v1/retrieve", response_model=None)(server.retrieve)
    app.get("/v1/models", response_model=None)(server.models)
    app.get("/healthz", response_model=None)(server.healthz)
    app.add_exception_handler(RequestError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    return app


class _Server:
    """The routes."""

    def __init__(self, pipelines: dict[str, Pipeline], retriever: Retriever | None, drain: float) -> None:
        self._pipelines = pipelines
        self._retriever = retriever
        self._drain = drain
        self._health = Health(pipelines)
        self._created = int(time.time())

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Models and indices load while the first health checks already answer (503 until they are there)."""
        warming = asyncio.create_task(self._health.warm(self._retriever))
        yield
        warming.cancel()

    async def chat(self, request: Request) -> Response:
        """The last user message is the question; see `rag.serve.openai_types` for what else is read, ignored and refused."""
        asked = parse(ChatRequest, await read_body(request))
        question = asked.question()
        pipeline = self._pipelines.get(asked.model)
        if pipeline is None:
            known = ", ".join(self._pipelines)
            raise RequestError(404, f"there is no model '{asked.model}'; this server has: {known}", code="model_not_found")
        inputs = {"filter": asked.graft.filter} if asked.graft and asked.graft.filter is not None else {}
        completion = Completion(asked.model, asked.remarks())
        try:
            if asked.stream:
                usage = asked.stream_options is not None and asked.stream_options.include_usage
                return await self._stream(request, completion, pipeline.astream(question, **inputs), usage)
            run = await unless(disconnected(request), pipeline.aexplain(question, **inputs))
            return JSONResponse(completion.whole(run))
        except GivenUp:
            return Response(status_code=_GONE)
        except Exception as error:
            raise to_request_error(error) from error

    async def _stream(self, request: Request, completion: Completion, events: AsyncIterator[Any], usage: bool) -> Response:
        try:
            first = await unless(disconnected(request), first_words(events))
        except BaseException:
            await close(events)
            raise
        stopping = anyio.Event()
        chunks = stream(completion, first, events, usage, Drain(stopping.wait, self._drain).over)
        return EventSourceResponse(chunks, sep="\n", shutdown_event=stopping, shutdown_grace_period=self._drain + 2)

    async def retrieve(self, request: Request) -> Response:
        """At most ``k`` hits, best first; never more than the retriever itself gives."""
        asked = parse(RetrieveRequest, await read_body(request))
        query = checked_text(asked.query, "query")
        if self._retriever is None:
            raise RequestError(404, "this pipeline has no retriever", code="no_retriever")
        try:
            hits = await unless(disconnected(request), self._retriever.asearch(query, k=asked.k, filter=asked.filter))
        except GivenUp:
            return Response(status_code=_GONE)
        except Exception as error:
            raise to_request_error(error) from error
        return JSONResponse({"object": "list", "hits": [describe_hit(hit, number) for number, hit in enumerate(hits, 1)]})

    async def models(self) -> Response:
        """The names that ``model`` may have."""
        data = [{"id": name, "object": "model", "created": self._created, "owned_by": "graft"} for name in self._pipelines]
        return JSONResponse({"object": "list", "data": data})

    async def healthz(self) -> Response:
        """200 if every model answers and every corpus opens, else 503."""
        health = await self._health.check()
        return JSONResponse(health, 200 if health["status"] == "ok" else 503)


async def _answer_error(request: Request, error: Exception) -> Response:
    known = to_request_error(error)
    return JSONResponse(known.body(), known.status)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "internal error")
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    message = f"{request.method} {request.url.path}: {detail}" if status in (404, 405) else str(detail)
    return JSONResponse(RequestError(status, message, code=code).body(), status)
