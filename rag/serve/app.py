"""The server: pipelines behind the protocols that clients already speak.

Routes are in `rag.serve.routes`, each group in a file; what stands in front of them, from the outside to the inside: `Observed` (request
ids, log, metrics), `SecurityHeaders`, `Hosts`, `Origins`, `Keys`, `Rates`.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import Match

from rag.core.errors import InputError, ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.core.protocols import Retriever
from rag.serve.adapters import SEPARATOR, Adapters, Slots
from rag.serve.admission import Admission
from rag.serve.asking import Asking
from rag.serve.breaker import Breaker
from rag.serve.contract import openapi_of
from rag.serve.documents.desk import Desk
from rag.serve.doors.keys import Keys, Ring
from rag.serve.doors.origins import Hosts, Origins, SecurityHeaders
from rag.serve.doors.rates import Addresses, Limiter, Rates
from rag.serve.errors import RequestError, to_request_error
from rag.serve.health import Health
from rag.serve.inspection import encoders_of, reranks_of, retriever_of
from rag.serve.jobs import Jobs
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.requests import Observed
from rag.serve.observe.spans import Tracing
from rag.serve.rerank_types import rankers_of
from rag.serve.routes import adapters as adapter_routes
from rag.serve.routes import chat, completions, documents, embeddings, playground, rerank, retrieve, state
from rag.serve.routes import jobs as job_routes
from rag.serve.routes import metrics as metric_routes
from rag.serve.routes import pipelines as pipeline_routes
from rag.serve.service import Service
from rag.serve.settings import Doors, Limits, Uploads

if TYPE_CHECKING:
    from adapters.registry import Registry
    from generators.models.supervisor import Supervisor


def create_app(
    pipeline: Pipeline | Mapping[str, Pipeline],
    *,
    retriever: Retriever | None = None,
    uploads: Uploads | None = None,
    engine: Supervisor | None = None,
    adapters: Registry | None = None,
    slots: Slots = Slots(),
    limits: Limits = Limits(),
    doors: Doors = Doors(),
    trace_content: bool = False,
) -> FastAPI:
    """An ASGI application that serves ``pipeline`` under the model name "graft", or several under their own names.

    ``retriever`` answers ``/v1/retrieve``; if None, the first pipeline's own retriever does. ``uploads``: callers may change the documents
    of a corpus. ``engine`` is started and ended with the server. ``adapters`` are offered as models "pipeline:adapter"; ``slots`` tells
    what the vLLM server allows of them. ``trace_content``: traces, where they are on, hold questions and answers. Raises `InputError` for
    an empty key, no pipeline or a name with ":", and `GraphError` if a pipeline is not complete.
    """
    pipelines = _named(pipeline)
    admission = Admission(limits.running, limits.waiting)
    worn = Adapters(pipelines, adapters, slots) if adapters is not None else None
    service = Service(
        pipelines,
        retriever or retriever_of(next(iter(pipelines.values()))),
        Health(pipelines, engine),
        Asking(admission, Breaker, limits.seconds, limits.drain),
        worn,
    )
    jobs = Jobs()
    desk = Desk(uploads) if uploads is not None else None
    metrics = Metrics({name: one.nodes for name, one in pipelines.items()})
    metrics.watch_queue(running=lambda: admission.running, waiting=lambda: admission.waiting, refused=lambda: admission.refused)
    metrics.watch_jobs(lambda: Counter((job.kind, job.status) for job in jobs.all()))
    if engine is not None:
        metrics.watch_engine(lambda: engine.restarts, lambda: engine.state)
    tracing = Tracing.from_environment(pipelines, content=trace_content)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Models and indices load while the first health checks already answer (503 until they are there)."""
        if engine is not None:
            await engine.start()
        warming = asyncio.create_task(_warm(service, engine))
        yield
        warming.cancel()
        await jobs.close()
        if engine is not None:
            await engine.stop()
        if desk is not None:
            await asyncio.to_thread(desk.close)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(title="graft", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    encoders = encoders_of(pipelines.values())
    routers = [playground.routes(), *(group.routes(service) for group in (chat, completions, retrieve, state, pipeline_routes))]
    routers += [embeddings.routes(encoders, seconds=limits.seconds), metric_routes.routes(metrics)]
    routers.append(rerank.routes(rankers_of(reranks_of(pipelines.values()), encoders), seconds=limits.seconds))
    if desk is not None:
        routers.append(documents.routes(desk.shelf, jobs, desk.receiver, desk.parser))
    if worn is not None:
        routers.append(adapter_routes.routes(worn, jobs))
    if desk is not None or worn is not None:
        routers.append(job_routes.routes(jobs))
    for router in routers:
        app.include_router(router)
    _describe(app, doors)
    _lock(app, doors)
    app.add_middleware(Observed, metrics=metrics, tracing=tracing)
    app.add_exception_handler(RequestError, _answer_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    return app


async def _warm(service: Service, engine: Supervisor | None) -> None:
    if engine is not None:
        with suppress(ModelUnavailable):  # it is told in the log, and by the health check
            await engine.ready()
    await service.health.warm(service.retriever)


def _named(pipeline: Pipeline | Mapping[str, Pipeline]) -> dict[str, Pipeline]:
    pipelines = dict(pipeline) if isinstance(pipeline, Mapping) else {"graft": pipeline}
    if not pipelines:
        raise InputError("there is no pipeline to serve")
    for name, one in pipelines.items():
        if not name or SEPARATOR in name:
            raise InputError(f"a pipeline is served under a name without '{SEPARATOR}', not {name!r}")
        _ = one.plan  # an incomplete graph fails now, not at the first question
    return pipelines


def _describe(app: FastAPI, doors: Doors) -> None:
    """``GET /openapi.json``, of all routes that are there by now."""
    in_front = (*((401, 403) if doors.locked else (403,)), *((421,) if doors.bind is not None else ()))
    document = openapi_of(app, in_front=(*in_front, *((429,) if doors.per_minute is not None else ())))

    async def openapi() -> Response:
        return JSONResponse(document)

    app.get("/openapi.json", response_model=None, include_in_schema=False)(openapi)


def _lock(app: FastAPI, doors: Doors) -> None:
    """The last one that is added stands outermost. Starlette makes them when the server starts: what is wrong is told now."""
    Origins(app, doors.origins)
    if doors.bind is not None:
        Hosts(app, doors.bind, doors.hosts)
    if doors.per_minute is not None:
        app.add_middleware(Rates, limiter=Limiter(doors.per_minute, doors.burst), addresses=Addresses(doors.proxies))
    if doors.locked:
        app.add_middleware(Keys, ring=Ring(doors.keys, doors.secret))
    app.add_middleware(Origins, allowed=doors.origins)
    if doors.bind is not None:
        app.add_middleware(Hosts, bind=doors.bind, allowed=doors.hosts)
    app.add_middleware(SecurityHeaders)


async def _answer_error(request: Request, error: Exception) -> Response:
    known = to_request_error(error)
    return JSONResponse(known.body(), known.status, known.headers)


async def _answer_http_error(request: Request, error: Exception) -> Response:
    status, detail = (error.status_code, error.detail) if isinstance(error, HTTPException) else (500, "internal error")
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "http_error")
    message = f"{request.method} {request.url.path}: {detail}" if status in (404, 405) else str(detail)
    headers = {"Allow": ", ".join(sorted(_methods(request)))} if status == 405 else None
    return JSONResponse(RequestError(status, message, code=code).body(), status, headers)


def _methods(request: Request) -> set[str]:
    """What this path may be asked with. Starlette's own header names the methods of one route, and a path may have several."""
    found = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in found for method in getattr(route, "methods", None) or ()}
