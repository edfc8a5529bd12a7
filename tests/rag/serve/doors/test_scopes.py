from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from rag.serve.doors.scopes import SCOPES, KeyScope, needed, route_path

METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "TRACE", "CONNECT", "get", "Post", "")

TABLE: list[tuple[str, str, KeyScope | None]] = [
    ("GET", "/healthz", None),
    ("GET", "/livez", None),
    ("GET", "/readyz", None),
    ("GET", "/", None),
    ("HEAD", "/", None),
    ("GET", "/playground/app.js", None),
    ("HEAD", "/playground/fonts/a-b_c.woff2", None),
    ("POST", "/v1/chat/completions", "ask"),
    ("POST", "/v1/completions", "ask"),
    ("POST", "/v1/embeddings", "ask"),
    ("POST", "/v1/rerank", "ask"),
    ("POST", "/v2/rerank", "ask"),
    ("POST", "/v1/retrieve", "ask"),
    ("GET", "/v1/answers", "ask"),
    ("POST", "/v1/answers", "admin"),
    ("GET", "/v1/models", "ask"),
    ("GET", "/v1/models/graft", "ask"),
    ("GET", "/v1/models/graft:chemistry", "ask"),
    ("GET", "/v1/adapters", "ask"),
    ("GET", "/v1/pipelines", "ask"),
    *((method, "/v1/documents", "write") for method in ("GET", "POST", "PUT", "PATCH", "DELETE")),
    ("DELETE", "/v1/documents/safety/suits.md", "write"),
    ("PUT", "/v1/documents/服装 100%.md", "write"),
    ("GET", "/v1/jobs", "write"),
    ("GET", "/v1/jobs/7/log", "write"),
    ("POST", "/v1/adapters", "admin"),
    ("DELETE", "/v1/adapters/chemistry", "admin"),
    ("POST", "/v1/adapters/compose", "admin"),
    ("GET", "/v1/adapters/chemistry", "admin"),
    ("GET", "/metrics", "admin"),
    ("POST", "/admin/reload", "admin"),
    ("GET", "/docs", "admin"),
    ("GET", "/openapi.json", "ask"),
    ("POST", "/mcp", "admin"),
    ("GET", "/nothing", "admin"),
]


@pytest.mark.parametrize(("method", "path", "scope"), TABLE, ids=[f"{method} {path}" for method, path, _ in TABLE])
def test_the_table(method: str, path: str, scope: KeyScope | None) -> None:
    assert needed(method, path) == scope


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/", "/playground/app.js"])
def test_an_open_door_is_open_for_reading_only(path: str) -> None:
    reading = {"GET", "HEAD"} if path in ("/", "/playground/app.js") else {"GET"}
    assert {method for method in METHODS if needed(method, path) is None} == reading


@pytest.mark.parametrize("path", [path for _, path, scope in TABLE if scope is not None])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "post", ""])
def test_a_method_that_is_not_in_the_table_needs_admin(method: str, path: str) -> None:
    assert needed(method, path) == "admin"


HOSTILE = [
    "//healthz",
    "/healthz/",
    "/healthz//",
    "/./healthz",
    "/x/../healthz",
    "/healthz/..",
    "/healthz/../metrics",
    "/healthz%2f..%2fmetrics",
    "/healthz%0a",
    "/healthz%00",
    "/healthz%20",
    "/healthz;x",
    "/healthz%3fx",
    "/healthz%23",
    "/healthz.json",
    "/HEALTHZ",
    "/metrics%0a",
    "/metrics/healthz",
    "http://evil.example/healthz",
    "*",
    "",
    "//",
    "/..",
    "/playground",
    "/playground/",
    "/playground//app.js",
    "/playground/../metrics",
    "/playground/..%2fmetrics",
    "/playground/%2e%2e/metrics",
    "/playground/%252e%252e/metrics",
    "/playground/..%5cmetrics",
    "/playground/a%5c..%5cmetrics",
    "/playground/a%252fb",
    "/playground/app.js/",
    "/playground/./app.js",
    "/playgroundx/app.js",
    "/playground%00/app.js",
    "/Playground/app.js",
    "//playground/app.js",
    "/v1//models",
    "/v1/models/",
    "/v1/models/..",
    "/v1/models/../adapters",
    "/v1/models%2f..%2fadapters",
    "/v1/models/a%2fb",
    "/v1/models/a%00",
    "/v1/modelsx",
    "/V1/models",
    "/v1/documents/",
    "/v1/documents//x",
    "/v1/documents/../adapters/chemistry",
    "/v1/documents/%2e%2e/adapters/chemistry",
    "/v1/documents/%252e%252e%252fadapters",
    "/v1/documents/..%5cadapters",
    "/v1/documents/x/..",
    "/v1/documents/x%0a",
    "/v1/documents/x%7f",
    "/v1/documentsx/y",
    "/v1/jobs/../../metrics",
    "/v1/%6aobs/..",
    "/v1\uff0fdocuments",
]


@pytest.mark.parametrize("raw", HOSTILE)
def test_an_odd_path_opens_nothing(raw: str) -> None:
    for method in METHODS:
        assert needed(method, unquote(raw)) == "admin", method


def test_an_encoded_slash_is_the_slash_that_the_routes_see() -> None:
    assert needed("POST", unquote("/v1%2fretrieve")) == "ask"
    assert needed("DELETE", unquote("/v1/documents%2Fx")) == "write"
    assert needed("GET", unquote("/%68ealthz")) is None


@pytest.mark.parametrize(
    ("prefix", "path", "scope"),
    [
        ("", "/v1/models", "ask"),
        ("/rag", "/rag/v1/models", "ask"),
        ("/rag", "/rag/healthz", None),
        ("/rag", "/v1/models", "ask"),
        ("/rag", "/rag", "admin"),
        ("/rag", "/ragged/healthz", "admin"),
        ("/rag", "/rag/rag/healthz", "admin"),
        ("/rag/", "/rag/healthz", "admin"),
    ],
)
def test_the_prefix_of_a_proxy_is_taken_off_once(prefix: str, path: str, scope: KeyScope | None) -> None:
    assert needed("GET", route_path({"path": path, "root_path": prefix})) == scope


def _group(name: str) -> Any:
    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse(name)

    return answer


ROUTED = Starlette(
    routes=[
        Route("/healthz", _group("open")),
        Route("/", _group("open")),
        Mount("/playground", app=Starlette(routes=[Route("/{file:path}", _group("open"))])),
        Route("/v1/models", _group("ask")),
        Route("/v1/models/{id}", _group("ask")),
        Route("/v1/retrieve", _group("ask"), methods=["POST"]),
        Route("/v1/documents", _group("write"), methods=["GET", "POST"]),
        Route("/v1/documents/{id:path}", _group("write"), methods=["GET", "PUT", "DELETE", "OPTIONS"]),
        Route("/v1/adapters", _group("ask")),
        Route("/v1/adapters", _group("admin"), methods=["POST"]),
        Route("/v1/adapters/{id:path}", _group("admin"), methods=["GET", "DELETE"]),
        Route("/metrics", _group("admin")),
        Route("/admin/{rest:path}", _group("admin"), methods=["GET", "POST"]),
    ]
)
PIECES = [
    "v1",
    "models",
    "documents",
    "adapters",
    "metrics",
    "admin",
    "healthz",
    "playground",
    "x",
    "..",
    ".",
    "",
    "\n",
    "\0",
    "\\",
    "%2f",
    "a.js",
]
paths = st.lists(st.sampled_from(PIECES), max_size=5).map(lambda pieces: "/" + "/".join(pieces))


def _routed(method: str, path: str) -> str | None:
    """The group of the route that Starlette takes for the request; None for no route."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope = {"type": "http", "method": method, "path": path, "raw_path": b"", "root_path": "", "query_string": b"", "headers": []}
    asyncio.run(ROUTED({**scope, "http_version": "1.1", "scheme": "http", "server": ("h", 1), "client": None}, receive, send))
    if sent[0]["status"] != 200:
        return None
    group: str = sent[1]["body"].decode()
    return group or "head"


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["GET", "POST", "PUT", "DELETE", "OPTIONS"]), paths)
def test_no_route_is_reached_with_less_than_its_own_scope(method: str, path: str) -> None:
    group = _routed(method, path)
    if group is not None:
        assert needed(method, path) in {"open": {None, *SCOPES}, "ask": {"ask", "admin"}, "write": {"write", "admin"}}.get(group, {"admin"})
