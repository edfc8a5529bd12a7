from __future__ import annotations

import hmac
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from rag.core.errors import ConfigError, InputError
from rag.serve.doors.keyfile import KeyFile
from rag.serve.doors.keys import Keys, Ring

SECRET = "a-secret-of-the-environment"


class Behind:
    """What stands behind the door: it remembers who came."""

    def __init__(self) -> None:
        self.callers: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        self.callers.append(scope["state"]["caller"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"in"})


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


def client(behind: Behind, ring: Ring) -> TestClient:
    return TestClient(Keys(behind, ring))


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


OPENED = [
    ("POST", "/v1/chat/completions", "ask"),
    ("GET", "/v1/models", "ask"),
    ("GET", "/v1/documents", "write"),
    ("DELETE", "/v1/documents/a", "write"),
    ("POST", "/v1/adapters", "admin"),
    ("GET", "/metrics", "admin"),
    ("GET", "/docs", "admin"),
    ("GET", "/nothing", "admin"),
]


@pytest.mark.parametrize(("method", "path", "scope"), OPENED, ids=[f"{method} {path}" for method, path, _ in OPENED])
def test_a_key_opens_what_its_scope_names(file: KeyFile, method: str, path: str, scope: str) -> None:
    secrets = {name: file.add(name, [name]) for name in ("ask", "write", "admin")}
    ids = {entry.name: entry.id for entry in file.entries()}
    behind = Behind()
    http = client(behind, Ring(file))
    for name, secret in secrets.items():
        reply = http.request(method, path, headers=bearer(secret))
        if name == scope:
            assert reply.status_code == 200
        else:
            error = reply.json()["error"]
            assert (reply.status_code, error["code"], error["type"]) == (403, "insufficient_scope", "permission_error")
            assert f"{method} {path} needs a key with the scope '{scope}'" in error["message"]
            assert error["message"].endswith(f"this key has: {name}")
            assert reply.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    assert behind.callers == [ids[scope]]


def test_the_key_of_the_environment_opens_everything(file: KeyFile) -> None:
    ours = file.add("web", ["ask"])
    behind = Behind()
    http = client(behind, Ring(file, SECRET))
    for method, path, _ in OPENED:
        assert http.request(method, path, headers=bearer(SECRET)).status_code == 200
    assert set(behind.callers) == {"environment"}
    assert http.get("/v1/models", headers=bearer(ours)).status_code == 200
    assert (
        client(behind, Ring(secret="schlüssel")).get("/v1/models", headers={"authorization": "Bearer schlüssel".encode()}).status_code
        == 200
    )


WRONG: list[tuple[str, Any]] = [
    ("none", {}),
    ("wrong", bearer("wrong")),
    ("empty", {"authorization": "Bearer "}),
    ("only the scheme", {"authorization": "Bearer"}),
    ("no scheme", {"authorization": SECRET}),
    ("basic", {"authorization": f"Basic {SECRET}"}),
    ("a beginning", bearer(SECRET[:-1])),
    ("longer", bearer(f"{SECRET}x")),
    ("in capitals", bearer(SECRET.upper())),
    ("two spaces", {"authorization": f"Bearer  {SECRET}"}),
    ("two keys", bearer(f"{SECRET}, Bearer {SECRET}")),
    ("not ASCII", {"authorization": "Bearer ü".encode()}),
    ("not UTF-8", {"authorization": b"Bearer \xff"}),
    ("long", bearer("x" * 60_000)),
    ("twice", [("authorization", f"Bearer {SECRET}"), ("authorization", f"Bearer {SECRET}")]),
    ("twice, one wrong", [("authorization", "Bearer wrong"), ("authorization", f"Bearer {SECRET}")]),
    ("another header", {"x-api-key": SECRET, "api-key": SECRET, "proxy-authorization": f"Bearer {SECRET}"}),
    ("a cookie", {"cookie": f"authorization=Bearer {SECRET}"}),
]


@pytest.mark.parametrize("headers", [case[1] for case in WRONG], ids=[case[0] for case in WRONG])
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/docs", "/v1/documents", "/nothing", "//healthz", "/healthz/", "/playground/"])
def test_anything_else_is_401_everywhere(path: str, headers: Any) -> None:
    behind = Behind()
    http = client(behind, Ring(secret=SECRET))
    bodies = set()
    for method in ("GET", "POST", "DELETE", "OPTIONS", "HEAD", "PUT"):
        reply = http.request(method, f"http://testserver{path}", headers=headers)
        assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer")
        if method != "HEAD":
            bodies.add(reply.text)
            assert SECRET not in reply.text
            assert reply.json()["error"]["code"] == "invalid_api_key"
    assert len(bodies) == 1
    assert behind.callers == []


@pytest.mark.parametrize("query", [f"api_key={SECRET}", f"key={SECRET}", f"access_token={SECRET}", f"authorization=Bearer%20{SECRET}"])
def test_a_key_in_the_address_is_no_key(query: str) -> None:
    assert client(Behind(), Ring(secret=SECRET)).get(f"/v1/models?{query}").status_code == 401


def test_a_key_in_the_body_is_no_key() -> None:
    assert client(Behind(), Ring(secret=SECRET)).post("/v1/retrieve", data={"access_token": SECRET}).status_code == 401


def test_the_scheme_may_be_written_as_one_likes() -> None:
    assert client(Behind(), Ring(secret=SECRET)).get("/v1/models", headers={"authorization": f"bearer {SECRET}"}).status_code == 200


@pytest.mark.parametrize("headers", [{}, bearer("wrong")])
def test_open_doors_need_no_key(headers: dict[str, str]) -> None:
    behind = Behind()
    http = client(behind, Ring(secret=SECRET))
    for path in ("/healthz", "/livez", "/readyz", "/", "/playground/app.js"):
        assert http.get(path, headers=headers).status_code == 200
    assert behind.callers == [None] * 5


def test_an_expired_key_is_like_a_wrong_one(file: KeyFile) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    secret = file.add("web", ["ask"], end)
    now = end - timedelta(seconds=1)
    http = client(Behind(), Ring(file, now=lambda: now))
    assert http.get("/v1/models", headers=bearer(secret)).status_code == 200
    now = end
    expired, wrong = (http.get("/v1/models", headers=bearer(given)) for given in (secret, "wrong"))
    assert (expired.status_code, expired.content, expired.headers) == (401, wrong.content, wrong.headers)
    assert http.get("/metrics", headers=bearer(secret)).status_code == 401


def test_who_asked_is_told_to_what_stands_outside_too(file: KeyFile) -> None:
    """An access log in front of the door sees whose key was refused."""
    secret = file.add("web", ["ask"])
    inner = Keys(Behind(), Ring(file))
    seen: list[Any] = []

    async def outside(scope: Any, receive: Any, send: Any) -> None:
        scope["state"] = {"caller": "somebody else"}
        await inner(scope, receive, send)
        seen.append(scope["state"]["caller"])

    http = TestClient(outside)
    http.get("/metrics", headers=bearer(secret))
    http.get("/v1/models", headers=bearer("wrong"))
    http.get("/healthz", headers=bearer(secret))
    assert seen == [file.entries()[0].id, None, None]


def test_every_key_is_compared_whichever_fits(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = [file.add(name, ["ask"]) for name in ("a", "b", "c")]
    ring = Ring(file, SECRET)
    compared: list[int] = []
    compare = hmac.compare_digest

    def counted(one: Any, other: Any) -> bool:
        compared[-1] += 1
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", counted)
    for given in (SECRET, *secrets, "wrong"):
        compared.append(0)
        found = ring.find(given.encode())
        assert (found is None) == (given == "wrong")
    assert compared == [4] * 5


def test_a_changed_file_counts_without_a_restart(file: KeyFile) -> None:
    first = file.add("a", ["ask"])
    now = 0.0
    http = client(Behind(), Ring(file, clock=lambda: now))
    second = file.add("b", ["ask"])
    file.remove("a")
    now = 1.0
    assert [http.get("/v1/models", headers=bearer(secret)).status_code for secret in (first, second)] == [401, 200]
    file.remove("b")
    now = 2.0
    assert http.get("/v1/models", headers=bearer(second)).status_code == 401


def test_a_websocket_is_refused_with_the_right_key_too() -> None:
    http = client(Behind(), Ring(secret=SECRET))
    for path in ("/", "/healthz", "/v1/models"):
        with pytest.raises(WebSocketDisconnect), http.websocket_connect(path, headers=bearer(SECRET)):
            pass


def test_a_long_path_is_not_told_back_whole(file: KeyFile) -> None:
    secret = file.add("web", ["ask"])
    assert len(client(Behind(), Ring(file)).get(f"/{'x' * 60_000}", headers=bearer(secret)).content) < 1_000


def test_a_ring_without_a_key_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no key"):
        Ring()
    for empty in ("", " \t"):
        with pytest.raises(InputError, match="empty"):
            Ring(secret=empty)
    with pytest.raises(ConfigError, match="there is no key file"):
        Ring(KeyFile(tmp_path / "nowhere"))


def test_no_secret_is_logged_or_shown(file: KeyFile, caplog: pytest.LogCaptureFixture) -> None:
    secret = file.add("web", ["ask"])
    now = 0.0
    with caplog.at_level(logging.DEBUG):
        ring = Ring(file, SECRET, clock=lambda: now)
        http = client(Behind(), ring)
        file.path.write_text(file.path.read_text().replace("web", "app"))
        now = 1.0
        for path in ("/v1/models", "/metrics"):
            for given in (secret, f"{secret}x", SECRET):
                reply = http.get(path, headers=bearer(given))
                assert given not in reply.text
        file.path.write_text("{")
        now = 2.0
        http.get("/v1/models", headers=bearer(secret))
    assert "read again" in caplog.text
    shown = caplog.text + repr(ring.find(secret.encode())) + repr(ring.find(SECRET.encode())) + repr(vars(ring))
    for hidden in (secret, secret.removeprefix("graft_"), SECRET):
        assert hidden not in shown
