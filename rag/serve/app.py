"""The server: pipelines behind the protocols that clients already speak.

Routes are in `rag.serve.routes`, each group in a file; what stands in front of them, from the outside to the inside: `Observed` (request
ids, log, metrics), `SecurityHeaders`, `Hosts`, `Origins`, `Keys`, `Rates`. They stay; the routes that depend on pipelines
(`rag.serve.serving`) are replaced on a reload.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from rag.core.errors import ModelUnavailable
from rag.core.protocols import Retriever
from rag.serve.adapters import Slots
from rag.serve.admission import Admission
from rag.serve.asking import Work
from rag.serve.contract import openapi_of
from rag.serve.documents.desk import Desk
from rag.serve.doors.lock import lock
from rag.serve.error_answers import answer_error, answer_errors
from rag.serve.jobs import Jobs
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.requests import Observed
from rag.serve.observe.spans import Tracing
from rag.serve.relay import Inside, Shown
from rag.serve.reload import Pipelines, Reload, Source
from rag.serve.routes import documents, playground
from rag.serve.routes import jobs as job_routes
from rag.serve.routes import metrics as metric_routes
from rag.serve.service import Service
from rag.serve.serving import Kept
from rag.serve.settings import Doors, Limits, Uploads, Worker

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from adapters.registry import Registry
    from rag.serve.engine_state import Engine


def create_app(
    pipeline: Pipelines,
    *,
    retriever: Retriever | None = None,
    source: Source | None = None,
    uploads: Uploads | None = None,
    engine: Engine | None = None,
    adapters: Registry | None = None,
    slots: Slots = Slots(),
    limits: Limits = Limits(),
    doors: Doors = Doors(),
    worker: Worker | None = None,
    trace_content: bool = False,
) -> FastAPI:
    """An ASGI application that serves ``pipeline`` under the model name "graft", or several under their own names.

    ``retriever`` answers ``/v1/retrieve``; if None, the first pipeline's own retriever does. ``source`` builds both anew on SIGHUP.
    ``uploads``: callers may change the documents of a corpus. ``engine`` is started and ended with the server. ``adapters`` are offered as
    models "pipeline:adapter"; ``slots`` tells what the vLLM server allows of them. ``worker``: it is one of several processes, and takes
    its share of ``limits``. ``trace_content``: traces, where they are on, hold questions and answers. Raises `InputError` for an empty key,
    no pipeline or a name with ":", and `GraphError` if a pipeline is not complete.
    """
    if worker is not None:
        limits = worker.share(limits)
    admission, jobs = Admission(limits.running, limits.waiting), Jobs()
    work = Work(Admission(limits.running, limits.waiting), limits.seconds)
    kept = Kept(limits, admission, work, jobs, uploads, engine, adapters, slots)
    first = kept.service(pipeline, retriever)
    served = dict(first.pipelines)  # traces look into it when a request ends
    desk = Desk(uploads) if uploads is not None else None
    metrics = Metrics({name: one.nodes for name, one in served.items()}, None if worker is None else worker.metrics)
    metrics.watch_queue(running=lambda: admission.running, waiting=lambda: admission.waiting, refused=lambda: admission.refused)
    metrics.watch_jobs(lambda: Counter((job.kind, job.status) for job in jobs.all()))
    if engine is not None and (worker is None or worker.writes):  # of what there is once, one worker tells
        metrics.watch_engine(lambda: engine.restarts, lambda: engine.state)
    tracing = Tracing.from_environment(served, content=trace_content)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        """Models and indices load while the first health checks already answer (503 until they are there)."""
        if engine is not None:
            await engine.start()
        beside = [asyncio.create_task(_warm(first, engine)), asyncio.create_task(metrics.share())]
        if source is not None:
            beside.append(asyncio.create_task(Reload(source, replace).follow()))
        yield
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        await jobs.close()
        if engine is not None:
            await engine.stop()
        if desk is not None:
            await asyncio.to_thread(desk.close)
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(title="graft", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    shown = Shown(app, _lasting(metrics, jobs, desk, adapters is not None), worker)

    async def replace(given: Pipelines, retriever: Retriever | None) -> None:
        """Try what was built anew; new requests go there only if it answers, and those that run end where they began."""
        service = kept.service(given, retriever)
        kept.check_replacement(service)
        routes = await asyncio.to_thread(kept.routes, service)
        await service.health.load(service.retriever)
        for name, one in service.pipelines.items():
            metrics.serving(name, one.nodes)
        served.clear()
        served.update(service.pipelines)
        shown.show(routes)

    shown.show(kept.routes(first))
    shown.add(_description(app, doors))
    lock(app, doors)
    app.add_middleware(Observed, metrics=metrics, tracing=tracing)
    for one in shown.apps:
        answer_errors(one)
    if shown.inside is not None and worker is not None:
        shown.inside.add_exception_handler(Exception, answer_error)
        app.add_middleware(Inside, inside=shown.inside, socket=worker.socket)
    return app


def _lasting(metrics: Metrics, jobs: Jobs, desk: Desk | None, adapters: bool) -> list[BaseRoute]:
    """The routes that do not depend on pipelines."""
    router = APIRouter()
    router.include_router(playground.routes())
    router.include_router(metric_routes.routes(metrics))
    if desk is not None:
        router.include_router(documents.routes(desk.shelf, jobs, desk.receiver, desk.parser))
    if desk is not None or adapters:
        router.include_router(job_routes.routes(jobs))
    return router.routes


async def _warm(service: Service, engine: Engine | None) -> None:
    if engine is not None:
        with suppress(ModelUnavailable):  # it is told in the log, and by the health check
            await engine.ready()
    await service.health.warm(service.retriever)


def _description(app: FastAPI, doors: Doors) -> BaseRoute:
    """``GET /openapi.json``, of all routes that are there by now."""
    in_front = (*((401, 403) if doors.locked else (403,)), *((421,) if doors.bind is not None else ()))
    document = openapi_of(app, in_front=(*in_front, *((429,) if doors.per_minute is not None else ())))

    async def openapi() -> Response:
        return JSONResponse(document)

    return APIRoute("/openapi.json", openapi, response_model=None, include_in_schema=False)
