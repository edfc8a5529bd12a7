"""All doors in their order, in front of the real routes and behind a real server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from rag.serve.app import create_app
from rag.serve.doors.keys import Keys, Ring
from rag.serve.doors.origins import Hosts, Origins, SecurityHeaders
from rag.serve.doors.rates import Limiter, Rates
from rag.serve.settings import Doors
from tests.rag.serve.parts import pipeline

SECRET = "a-secret-of-the-environment"
APP = "https://app.example.org"
KEY = {"authorization": f"Bearer {SECRET}"}


def closed(rate: float = 6_000) -> Any:
    """The server with all its doors."""
    return create_app(pipeline(), doors=Doors(secret=SECRET, bind="127.0.0.1", origins=(APP,), per_minute=rate))


def guarded(app: Any, rate: float = 6_000) -> Any:
    """``app`` behind the same doors."""
    inner = Keys(Rates(app, Limiter(rate)), Ring(secret=SECRET))
    return SecurityHeaders(Hosts(Origins(inner, [APP])))


def test_every_route_of_the_server_is_closed_but_the_open_ones() -> None:
    app = closed()
    found = {(method, route.path) for route in _flat(app.routes) for method in route.methods}
    assert {("POST", "/v1/chat/completions"), ("GET", "/v1/models"), ("GET", "/healthz")} <= found
    http = TestClient(app, base_url="http://localhost", raise_server_exceptions=False)
    opened = {("GET", path) for path in ("/healthz", "/livez", "/readyz", "/")} | {("HEAD", "/")}
    for method, template in found:
        path = template.replace("{", "").replace("}", "").replace(":path", "")
        if (method, path) in opened or (path.startswith("/playground/") and method in ("GET", "HEAD")):
            continue
        for headers in ({}, {"authorization": "Bearer wrong"}):
            reply = http.request(method, path, headers=headers)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer"), path


def _flat(routes: Any) -> Iterator[Any]:
    for route in routes:
        inner = getattr(route, "routes", None) or getattr(getattr(route, "original_router", None), "routes", None)
        if inner:
            yield from _flat(inner)
        elif getattr(route, "methods", None):
            yield route


def test_a_refusal_of_each_door_has_the_headers_of_the_outer_ones() -> None:
    http = TestClient(closed(rate=1), base_url="http://localhost")
    cases: list[tuple[int, dict[str, str]]] = [
        (421, {"host": "evil.example", **KEY}),
        (403, {"origin": "https://evil.example", **KEY}),
        (401, {"origin": APP}),
        (415, {"origin": APP, **KEY}),
        (429, {"origin": APP, **KEY}),
    ]
    for status, headers in cases:
        reply = http.post("/v1/retrieve", content=b"x", headers=headers)
        assert reply.status_code == status
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert (reply.headers["x-content-type-options"], reply.headers["cache-control"]) == ("nosniff", "no-store")
        assert (reply.headers.get("access-control-allow-origin") == APP) == (headers.get("origin") == APP)


def test_a_refused_caller_costs_the_others_nothing() -> None:
    http = TestClient(closed(rate=1), base_url="http://localhost")
    for _ in range(5):
        assert http.get("/v1/models", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert http.get("/v1/models", headers=KEY).status_code == 200
    assert http.get("/v1/models", headers=KEY).status_code == 429


def test_pieces_of_a_stream_and_the_leaving_of_a_client_pass_at_once() -> None:
    """A door that gathers the answer, or reads the request itself, would hang here."""
    heard: list[str] = []

    async def scenario() -> None:
        seen, gone = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert (await receive())["body"] == b"{}"
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await seen.wait()
            heard.append((await receive())["type"])

        messages = [{"type": "http.request", "body": b"{}", "more_body": False}]

        async def receive() -> Any:
            if messages:
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            if message.get("body") == b"first":
                seen.set()
                gone.set()

        headers = [(b"host", b"localhost"), (b"authorization", KEY["authorization"].encode())]
        scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": headers, "client": ("127.0.0.1", 1)}
        await asyncio.wait_for(guarded(app)(scope, receive, send), 10)

    asyncio.run(scenario())
    assert heard == ["http.disconnect"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A real server that answers what it was asked for, behind all doors."""

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(scope["path"]).encode()})

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(guarded(echo), log_level="error", lifespan="off", proxy_headers=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield listening.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join(10)


def status(port: int, head: str) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode("latin-1"))
        return int(connection.makefile("rb").readline().split()[1])


RAW = [
    ("GET /healthz", 200),
    ("GET /%68ealthz", 200),
    ("GET /healthz?x=/../metrics", 200),
    ("GET /metrics", 401),
    ("GET /metrics?/healthz", 401),
    ("GET /healthz/../metrics", 401),
    ("GET /healthz%2f..%2fmetrics", 401),
    ("GET /healthz%0a", 401),
    ("GET /playground/..%2fmetrics", 401),
    ("GET /playground/%2e%2e/metrics", 401),
    ("GET /playground/%252e%252e/metrics", 401),
    ("GET //healthz", 401),
    ("GET /healthz/", 401),
    ("HEAD /v1/models", 401),
    ("OPTIONS /v1/models", 401),
    ("OPTIONS *", 401),
    ("GET http://localhost/metrics", 401),
    ("POST /healthz", 401),
]


@pytest.mark.parametrize(("line", "expected"), RAW, ids=[case[0] for case in RAW])
def test_paths_as_they_come_over_the_wire(port: int, line: str, expected: int) -> None:
    assert status(port, f"{line} HTTP/1.1\nHost: localhost:{port}\nContent-Length: 0\nConnection: close\n\n") == expected


def test_headers_as_they_come_over_the_wire(port: int) -> None:
    first = "GET /v1/models HTTP/1.1\n"
    key, host = f"Authorization: Bearer {SECRET}\n", f"Host: 127.0.0.1:{port}\n"
    assert status(port, f"{first}{host}{key}\n") == 200
    assert status(port, f"{first}{host}{key}{key}\n") == 401
    assert status(port, f"{first}Host: evil.example\n{key}\n") == 421
    assert status(port, f"{first}{host}Host: evil.example\n{key}\n") in (400, 421)
    assert status(port, f"GET /v1/models HTTP/1.0\n{key}\n") == 421
    assert status(port, f"{first}{host}X-Original-URL: /healthz\nX-Rewrite-URL: /healthz\n\n") == 401
    assert status(port, f"{first}{host}X-HTTP-Method-Override: GET\nAuthorization: Bearer x\n {SECRET}\n\n") in (400, 401)
    upgrade = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n"
    assert status(port, f"GET /healthz HTTP/1.1\n{host}{key}{upgrade}\n") == 403
    assert status(port, f"GET /healthz HTTP/1.1\nHost: evil.example\n{key}{upgrade}\n") == 403
