from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from rag.core.errors import InputError
from rag.serve.doors.origins import Hosts, Origins, SecurityHeaders

OWN = "http://127.0.0.1:8080"
APP = "https://app.example.org"


class Behind:
    """Answers everything, and counts."""

    def __init__(self) -> None:
        self.reached = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        self.reached += 1
        await Response("in", headers={"Vary": "Accept"})(scope, receive, send)


async def talk(app: Any, headers: list[tuple[str, str]], method: str = "GET", **scope: Any) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body) of one request with exactly these headers."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    asked = {"type": "http", "method": method, "path": "/v1/retrieve", "headers": raw, "server": None, "client": None, **scope}
    await app(asked, receive, send)
    answered = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent)


def ask(app: Any, *headers: tuple[str, str], method: str = "GET", **scope: Any) -> tuple[int, dict[str, str], bytes]:
    import asyncio

    return asyncio.run(talk(app, list(headers), method, **scope))


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8080", "LOCALHOST:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8080", "[0:0:0:0:0:0:0:1]:8080"]
)
def test_loopback_is_answered_by_default(host: str) -> None:
    assert ask(Hosts(Behind()), ("host", host))[0] == 200


FOREIGN = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "evil.example/localhost",
    "localhost@evil.example",
    "localhost:80@evil.example",
    "localhost evil.example",
    "localhost,evil.example",
    "localhost:",
    "localhost:x",
    "localhost:123456",
    "localhost.",
    "localhost\n",
    "localhost\x00",
    ":8080",
    "",
    "*",
    "0.0.0.0",
    "127.0.0.2",
    "127.1",
    "2130706433",
    "0x7f.1",
    "::1",
    "[::1",
    "[::2]",
    "[:::]",
    "10.0.0.7",
    "l\xf6calhost",
]


@pytest.mark.parametrize("host", FOREIGN)
def test_a_foreign_host_is_misdirected(host: str) -> None:
    behind = Behind()
    status, headers, body = ask(Hosts(behind), ("host", host))
    assert (status, headers["content-type"], behind.reached) == (421, "application/json", 0)
    assert b'"misdirected_request"' in body


@pytest.mark.parametrize("headers", [[], [("host", "localhost"), ("host", "localhost")], [("host", "localhost"), ("host", "evil.example")]])
def test_no_host_or_two_are_misdirected(headers: list[tuple[str, str]]) -> None:
    behind = Behind()
    assert ask(Hosts(behind), *headers)[0] == 421
    assert ask(Hosts(behind), *headers, method="OPTIONS")[0] == 421
    assert ask(Hosts(behind), ("x-forwarded-host", "localhost"), *headers)[0] == 421
    assert behind.reached == 0


def test_the_bind_host_and_allowed_names_are_answered() -> None:
    app = Hosts(Behind(), "10.0.0.7", ["Rag.example.org", "2001:DB8::1"])
    for host in ("10.0.0.7:8080", "rag.example.org", "RAG.EXAMPLE.ORG:443", "[2001:db8::1]:8080", "localhost"):
        assert ask(app, ("host", host))[0] == 200
    for host in ("10.0.0.8", "example.org", "x.rag.example.org", "evil.example"):
        assert ask(app, ("host", host))[0] == 421
    assert ask(Hosts(Behind(), "gpu-box"), ("host", "gpu-box:8080"))[0] == 200
    assert ask(Hosts(Behind(), allowed=["*"]), ("host", "evil.example"))[0] == 200


def test_the_numeric_address_that_was_connected_to_is_answered() -> None:
    """A probe of an orchestrator, or a colleague, names the address; a page that rebinds its name sends the name."""
    app = Hosts(Behind(), "0.0.0.0")
    assert ask(app, ("host", "10.1.2.3:8080"), server=("10.1.2.3", 8080))[0] == 200
    assert ask(app, ("host", "10.1.2.3:8080"), server=("::ffff:10.1.2.3", 8080))[0] == 200
    assert ask(app, ("host", "[2001:db8::1]"), server=("2001:db8::1", 8080))[0] == 200
    assert ask(app, ("host", "10.1.2.4:8080"), server=("10.1.2.3", 8080))[0] == 421
    assert ask(app, ("host", "evil.example"), server=("evil.example", 8080))[0] == 421
    assert ask(app, ("host", "graft.sock"), server=("graft.sock", None))[0] == 421


@pytest.mark.parametrize(
    "name", ["", "http://rag.example.org", "rag.example.org:80", "a b", "*.example.org", "a/b", "[::1]:80", "ü.example", "a\n"]
)
def test_what_is_no_name_is_an_error_at_the_start(name: str) -> None:
    with pytest.raises(InputError, match="no name of a host"):
        Hosts(Behind(), allowed=[name])
    with pytest.raises(InputError, match="no name of a host"):
        Hosts(Behind(), name)


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post", "")
FOREIGN_ORIGINS = [
    "https://evil.example",
    "null",
    "",
    "http://127.0.0.1",
    "http://127.0.0.1:8081",
    "http://localhost:8080",
    "http://127.0.0.1:8080.evil.example",
    "http://127.0.0.1:8080/",
    "http://127.0.0.1:8080@evil.example",
    "http://evil.example:8080",
    "127.0.0.1:8080",
    "file://127.0.0.1:8080x",
    "chrome-extension://127.0.0.1",
    "http://127.0.0.1:8080 https://evil.example",
    "https://app.example.org.evil.example",
    "http://app.example.org",
    "https://app.example.org:8443",
    "https://xapp.example.org",
    "http://[::1]:8080",
    "*",
    "\xff",
]


@pytest.mark.parametrize("origin", FOREIGN_ORIGINS)
def test_a_page_of_a_foreign_origin_changes_nothing_and_reads_nothing(origin: str) -> None:
    behind = Behind()
    app = Origins(behind, [APP])
    for method in METHODS:
        before = behind.reached
        status, headers, body = ask(app, ("host", "127.0.0.1:8080"), ("origin", origin), method=method)
        assert (status, behind.reached, b'"origin_not_allowed"' in body) == (403, before, True), method
        assert "access-control-allow-origin" not in headers
        assert "Origin" in headers["vary"]
        status, headers, _ = ask(app, ("host", "127.0.0.1:8080"), ("origin", origin), method=method, path="/healthz")
        assert (status == 200) == (behind.reached == before + 1) == (method in ("GET", "HEAD")), method
        assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize("path", ["/v1/answers", "/v1/models", "/v2/rerank"])
@pytest.mark.parametrize(
    "sites", [["cross-site"], ["same-site"], ["none", "cross-site"], ["none, cross-site"], ["Same-Origin"], [""], ["x"]]
)
def test_an_address_that_a_foreign_page_loads_as_a_picture_is_refused(path: str, sites: list[str]) -> None:
    """No Origin comes with ``<img src>``, a link or a frame; a browser says where they stand all the same."""
    behind = Behind()
    app = Origins(behind, [APP])
    headers = [("host", "127.0.0.1:8080"), *(("sec-fetch-site", site) for site in sites)]
    for method in METHODS:
        status, _, body = ask(app, *headers, method=method, path=path)
        assert (status, b'"origin_not_allowed"' in body) == (403, True)
    assert ask(app, *headers, path=path, root_path="/graft")[0] == 403
    assert ask(app, *headers, path=f"/graft{path}", root_path="/graft")[0] == 403
    assert behind.reached == 0
    for other in ("/", "/playground/main.js", "/healthz"):  # a link to the page is fine
        assert ask(app, *headers, path=other)[0] == 200


def test_what_our_own_page_loads_and_a_person_types_is_answered() -> None:
    for site in ("same-origin", "none"):
        assert ask(Origins(Behind()), ("host", "127.0.0.1:8080"), ("sec-fetch-site", site), path="/v1/answers")[0] == 200
    allowed = ask(Origins(Behind(), [APP]), ("host", "x"), ("origin", APP), ("sec-fetch-site", "cross-site"), path="/v1/answers")
    assert (allowed[0], allowed[1]["access-control-allow-origin"]) == (200, APP)


@pytest.mark.parametrize("method", METHODS)
def test_without_an_origin_nothing_is_refused(method: str) -> None:
    status, headers, _ = ask(Origins(Behind()), ("host", "127.0.0.1:8080"), method=method)
    assert (status, headers["vary"]) == (200, "Accept, Origin")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8080", OWN),
        ("LocalHost:8080", "http://localhost:8080"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("rag.example.org", "https://rag.example.org"),
        ("rag.example.org:443", "https://rag.example.org"),
        ("rag.example.org", "http://rag.example.org:80"),
    ],
)
def test_our_own_page_may_do_everything(host: str, origin: str) -> None:
    for method in METHODS:
        assert ask(Origins(Behind()), ("host", host), ("origin", origin), method=method)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        [("origin", OWN)],
        [("origin", OWN), ("host", "127.0.0.1:8080"), ("host", "127.0.0.1:8080")],
        [("origin", OWN), ("origin", OWN), ("host", "127.0.0.1:8080")],
        [("origin", "chrome-extension://127.0.0.1"), ("host", "127.0.0.1")],
        [("origin", APP), ("origin", "https://evil.example"), ("host", "127.0.0.1:8080")],
        [("origin", OWN), ("host", "evil.example"), ("x-forwarded-host", "127.0.0.1:8080")],
    ],
)
def test_two_origins_or_no_certain_host_are_foreign(headers: list[tuple[str, str]]) -> None:
    assert ask(Origins(Behind(), [APP]), *headers, method="POST")[0] == 403


def test_an_allowed_page_reads_the_answer_without_credentials() -> None:
    app = Origins(Behind(), [APP, "http://localhost:3000", "HTTPS://B.example.org:443"])
    for origin in (APP, "http://localhost:3000", "https://b.example.org"):
        for method in ("GET", "POST", "DELETE"):
            status, headers, _ = ask(app, ("host", "127.0.0.1:8080"), ("origin", origin), method=method)
            assert (status, headers["access-control-allow-origin"], headers["vary"]) == (200, origin, "Accept, Origin")
            assert headers["access-control-expose-headers"] == "Retry-After, X-Request-Id"
            assert "access-control-allow-credentials" not in headers


def preflight(origin: str, method: str = "POST", headers: str = "authorization, content-type, x-stainless-os") -> list[tuple[str, str]]:
    host = ("host", "127.0.0.1:8080")
    return [host, ("origin", origin), ("access-control-request-method", method), ("access-control-request-headers", headers)]


def test_a_preflight_is_answered_for_allowed_origins_only() -> None:
    behind = Behind()
    app = Origins(behind, [APP])
    status, headers, _ = ask(app, *preflight(APP), ("access-control-request-private-network", "true"), method="OPTIONS")
    assert (status, headers["access-control-allow-origin"]) == (200, APP)
    assert headers["access-control-allow-headers"] == "authorization, content-type, x-stainless-os"
    assert set(headers["access-control-allow-methods"].split(", ")) == {"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"}
    assert "access-control-allow-credentials" not in headers
    assert "Origin" in headers["vary"]
    for origin in (*FOREIGN_ORIGINS, OWN):
        status, headers, body = ask(app, *preflight(origin), method="OPTIONS")
        assert (status, b'"origin_not_allowed"' in body) == (403, True)
        assert not any(name.startswith("access-control") for name in headers)
    for method in ("TRACE", "OPTIONS", "post", ""):
        status, _, body = ask(app, *preflight(APP, method), method="OPTIONS")
        assert (status, b'"cors_method"' in body) == (403, True)
    assert ask(Origins(behind), *preflight(APP), method="OPTIONS")[0] == 403
    assert behind.reached == 0


@pytest.mark.parametrize(
    "origin",
    ["*", "null", "", "app.example.org", "https://", "https://a.example/", "https://a.example/x", "https://*.example", "https://ü.example"],
)
def test_what_is_no_origin_is_an_error_at_the_start(origin: str) -> None:
    with pytest.raises(InputError, match="is no origin"):
        Origins(Behind(), [origin])


@pytest.mark.parametrize("door", [Hosts, Origins])
def test_a_websocket_of_a_stranger_is_refused(door: Any) -> None:
    http = TestClient(door(Behind()), base_url="http://evil.example")
    with pytest.raises(WebSocketDisconnect), http.websocket_connect("/", headers={"origin": "https://other.example"}):
        pass


def test_security_headers_are_on_every_answer() -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        answers = {
            "/": HTMLResponse("<p>hello", headers={"content-security-policy": "default-src *"}),
            "/x": Response(b"<p>", media_type="application/xhtml+xml"),
        }
        await answers.get(scope["path"], JSONResponse({}, 404, headers={"cache-control": "public"}))(scope, receive, send)

    http = TestClient(SecurityHeaders(page))
    for path in ("/", "/x", "/v1/models", "/v2/rerank", "/v1x", "/metrics"):
        headers = http.get(path).headers
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert (headers.get("cache-control") == "no-store") == (path in ("/v1/models", "/v2/rerank"))
        assert ("content-security-policy" in headers) == (path in ("/", "/x"))
    assert http.get("/").headers.get_list("content-security-policy") == [
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ]
    assert http.get("/v1/models").headers.get_list("cache-control") == ["no-store"]
