"""A reader and a writer in one process: the writer behind a real Unix socket, the reader asked directly."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from rag.serve.errors import RequestError
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.requests import Observed
from rag.serve.relay import Inside, Shown
from rag.serve.settings import Worker


class Writer:
    """What the routes of the writer saw."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.headers: dict[str, str] = {}
        self.left = threading.Event()

    def routes(self) -> list[Any]:
        router = APIRouter()
        router.post("/v1/documents")(self.upload)
        router.get("/v1/documents/{id:path}")(self.one)
        router.get("/v1/jobs")(self.events)
        router.get("/v1/adapters")(self.broken)
        router.get("/v1/models")(self.one)
        router.get("/v1/documentsandmore")(self.one)
        return router.routes

    async def upload(self, request: Request) -> Response:
        self.headers = dict(request.headers)
        async for piece in request.stream():
            self.pieces.append(piece)
        return Response(b"\x00" * 100_000, 202, {"Location": "/v1/jobs/7", "X-Own": "a, b"}, "application/x-own")

    async def one(self, request: Request, id: str = "") -> Response:
        if id == "refused":
            raise RequestError(429, "full", code="queue_full", retry_after=3)
        return JSONResponse({"id": id, "query": request.url.query, "raw": request.scope["raw_path"].decode()})

    async def events(self) -> Response:
        async def endless() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"data: x\n\n"
                    await asyncio.sleep(0.01)
            finally:
                self.left.set()

        return StreamingResponse(endless(), media_type="text/event-stream")

    async def broken(self) -> Response:
        raise KeyError("/home/secret")


async def told(request: Request, error: Exception) -> Response:
    known = error if isinstance(error, RequestError) else RequestError(500, "internal error", type="server_error")
    return JSONResponse(known.body(), known.status, known.headers)


@pytest.fixture
def writer() -> Writer:
    return Writer()


@pytest.fixture
def place(tmp_path: Path) -> Worker:
    return Worker(1, 2, tmp_path)


@pytest.fixture
def reader(writer: Writer, place: Worker) -> FastAPI:
    app = FastAPI(exception_handlers={RequestError: told})
    Shown(app, writer.routes(), place).show([])
    app.add_middleware(Observed, metrics=Metrics({}))
    return app


@pytest.fixture
def running(writer: Writer, place: Worker) -> Iterator[None]:
    app = FastAPI()
    shown = Shown(app, writer.routes(), Worker(0, 2, place.folder))
    shown.show([])
    assert shown.inside is not None
    for kind in (RequestError, Exception):
        shown.inside.add_exception_handler(kind, told)
    app.add_middleware(Inside, inside=shown.inside, socket=place.socket)
    own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    own.bind(str(place.socket))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, args=([own],))
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield
    server.should_exit = True
    thread.join()


def asked(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            return await http.request(method, path, **options)

    return asyncio.run(ask())


@pytest.mark.usefixtures("running")
def test_bodies_headers_and_statuses_go_through_as_they_are(reader: FastAPI, writer: Writer) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            yield bytes([number]) * 70_000

    headers = {"Content-Type": "multipart/form-data; boundary=x", "Authorization": "Bearer graft_secret", "X-Request-Id": "mine"}
    reply = asked(reader, "POST", "/v1/documents", content=pieces(), headers=headers)
    assert (reply.status_code, len(reply.content)) == (202, 100_000)
    assert [reply.headers[name] for name in ("location", "x-own", "content-type", "x-request-id")] == [
        "/v1/jobs/7", "a, b", "application/x-own", "mine",
    ]  # fmt: skip
    assert b"".join(writer.pieces) == b"".join(bytes([number]) * 70_000 for number in range(3))
    assert writer.headers["content-type"] == headers["Content-Type"]
    assert writer.headers["x-request-id"] == "mine"
    assert "authorization" not in writer.headers


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("id", ["a/b.md", "%E6%9C%8D%20x", "..%2f..%2fetc", "a%2Fb", "http://elsewhere/x"])
def test_paths_and_queries_go_through_as_they_were_written(id: str, reader: FastAPI) -> None:
    reply = asked(reader, "GET", f"/v1/documents/{id}?limit=3&after=%26")
    assert reply.status_code == 200
    assert reply.json()["query"] == "limit=3&after=%26"
    assert reply.json()["raw"] == f"/v1/documents/{id}"


@pytest.mark.usefixtures("running")
def test_errors_have_their_shape_and_show_nothing_of_the_inside(reader: FastAPI) -> None:
    refused = asked(reader, "GET", "/v1/documents/refused")
    assert (refused.status_code, refused.headers["retry-after"], refused.json()["error"]["code"]) == (429, "3", "queue_full")
    broken = asked(reader, "GET", "/v1/adapters")
    assert (broken.status_code, "secret" in broken.text, set(broken.json())) == (500, False, {"error"})


def test_without_a_writer_it_is_503_and_other_routes_answer(reader: FastAPI) -> None:
    away = asked(reader, "POST", "/v1/documents", content=b"x")
    assert (away.status_code, away.headers["retry-after"], away.json()["error"]["code"]) == (503, "2", "writer_unavailable")
    assert asked(reader, "GET", "/v1/models").status_code == 200


@pytest.mark.usefixtures("running")
def test_over_the_socket_there_is_nothing_but_the_writers_own_routes(place: Worker) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(place.socket)), base_url="http://writer") as http:
        codes = [http.get(path).status_code for path in ("/v1/documents/a", "/v1/models", "/v1/documentsandmore", "/openapi.json", "/docs")]
    assert codes == [200, 404, 404, 404, 404]


@pytest.mark.usefixtures("running")
def test_a_caller_that_leaves_a_stream_leaves_the_writer_too(reader: FastAPI, writer: Writer) -> None:
    async def call() -> int:
        seen, enough, asked = 0, asyncio.Event(), False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await enough.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            nonlocal seen
            seen += bool(message.get("body"))
            if seen == 3:
                enough.set()

        scope = {
            "type": "http", "method": "GET", "path": "/v1/jobs", "raw_path": b"/v1/jobs", "query_string": b"", "headers": [],
            "http_version": "1.1", "scheme": "http", "server": ("localhost", 80), "client": ("127.0.0.1", 1), "root_path": "",
        }  # fmt: skip
        await asyncio.wait_for(reader(scope, receive, send), 10)
        return seen

    assert asyncio.run(call()) >= 3
    assert writer.left.wait(10)


def test_a_body_that_stops_coming_is_given_up(writer: Writer, place: Worker, running: None) -> None:
    from rag.serve.relay import Relay

    async def call() -> int:
        async def never() -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        scope = {"type": "http", "method": "POST", "path": "/v1/documents", "raw_path": b"/v1/documents", "query_string": b""}
        with pytest.raises(RequestError) as caught:
            await Relay(place.socket, idle=0.1)({**scope, "headers": [(b"content-length", b"5")]}, never, never)
        return caught.value.status

    assert asyncio.run(call()) == 408
