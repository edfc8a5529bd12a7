"""A small application that reports as the real routes do, and a caller below HTTP clients."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from rag.core.engine import Run
from rag.core.pipeline import Pipeline
from rag.core.trace import TextDelta
from rag.serve.describe import as_answer
from rag.serve.doors.keys import Keys, Ring
from rag.serve.errors import RequestError, to_request_error
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.recorder import recorder_of
from rag.serve.observe.requests import Observed
from rag.serve.observe.spans import Tracing
from rag.serve.routes import metrics as metrics_route
from rag.serve.waiting import GONE, GivenUp, disconnected, unless
from tests.rag.serve.parts import pipeline

KEY = "sk-hunter2-0123456789"


def observed(pipe: Pipeline | None = None, *, key: str | None = None, tracing: Tracing | None = None) -> tuple[FastAPI, Metrics]:
    """``POST /ask/{user}`` (``?stream=1`` streams), ``GET /fails`` and ``GET /metrics``."""
    pipe = pipe or pipeline()
    metrics = Metrics({"graft": pipe.nodes})
    app = FastAPI()

    @app.post("/ask/{user}")
    async def ask(request: Request, user: str, stream: bool = False) -> Response:
        question = (await request.json())["question"]
        recorder = recorder_of(request)
        recorder.started("graft", question, stream=stream)
        if stream:
            return StreamingResponse(pieces(request, question))
        try:
            run = await unless(disconnected(request), pipe.aexplain(question))
            recorder.finished(run)
            return JSONResponse({"answer": as_answer(run.value).text})
        except GivenUp:
            return Response(status_code=GONE)
        except Exception as error:
            known = to_request_error(error)
            return JSONResponse(known.body(), known.status)

    async def pieces(request: Request, question: str) -> AsyncIterator[str]:
        async with aclosing(pipe.astream(question)) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    recorder_of(request).first_token()
                    yield event.text
                elif isinstance(event, Run):
                    recorder_of(request).finished(event)
                    _ = event.value

    @app.get("/fails")
    async def fails(wanted: str) -> None:
        raise RuntimeError(f"no luck with {wanted}")

    @app.exception_handler(RequestError)
    async def known(request: Request, error: RequestError) -> Response:
        return JSONResponse(error.body(), error.status)

    app.include_router(metrics_route.routes(metrics))
    if key is not None:
        app.add_middleware(Keys, ring=Ring(secret=key))
    app.add_middleware(Observed, metrics=metrics, tracing=tracing)  # the last one added is the outermost
    return app, metrics


SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "path": "/ask/ann",
    "raw_path": b"/ask/ann",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"content-type", b"application/json")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 8080),
}


def call(app: Any, *, asked: Any = None, leaves: Callable[[], bool] = lambda: False, **scope: Any) -> list[dict[str, Any]]:
    """The messages that the application sends; the caller goes as soon as ``leaves``."""
    sent: list[dict[str, Any]] = []
    bodies = [{"type": "http.request", "body": json.dumps(asked or {"question": "How long?"}).encode(), "more_body": False}]

    async def receive() -> Any:
        if bodies:
            return bodies.pop()
        while not leaves():
            await asyncio.sleep(0.005)
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def scenario() -> None:
        answering: Awaitable[None] = app({**SCOPE, "state": {}, **scope}, receive, send)
        await asyncio.wait_for(answering, 20)

    asyncio.run(scenario())
    return sent


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """A sample's value, 0 if there is none."""
    return metrics.registry.get_sample_value(f"graft_{name}", labels) or 0.0
