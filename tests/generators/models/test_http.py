from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from generators.models.http import HttpClient, error_message
from rag.core.deadline import within
from rag.core.errors import ConfigError, InputError, ModelError, ModelRefused, ModelUnavailable, PromptTooLong

URL = "http://user:secret@models.example:8000"


def client(script: Any, url: str = URL, **changes: Any) -> HttpClient:
    options: dict[str, Any] = {"api_key_env": None, "key_required": True, "timeout": 5.0, "retries": 2, "max_connections": 4} | changes
    made = HttpClient(url, **options)
    made.transport = script.transport if script is not None else None
    made.pause = 0.0
    return made


def post(made: HttpClient) -> Any:
    async def call() -> Any:
        try:
            return await made.post("/x", {"a": "好"})
        finally:
            await made.close()

    return asyncio.run(call())


def stream(made: HttpClient, events: list[Any] | None = None) -> list[Any]:
    got = [] if events is None else events

    async def call() -> None:
        try:
            async for event in made.stream("/x", {}):
                got.append(event)
        finally:
            await made.close()

    asyncio.run(call())
    return got


def ok(value: Any = None) -> httpx.Response:
    return httpx.Response(200, json={"ok": 1} if value is None else value)


@pytest.mark.parametrize(
    "failure",
    [
        httpx.Response(500, text="oops"),
        httpx.Response(503, json={"error": {"message": "busy"}}),
        httpx.Response(429, json={"error": {"message": "slow down"}}, headers={"retry-after": "0"}),
        httpx.ConnectError("connection refused"),
        httpx.ReadTimeout("timed out"),
        httpx.RemoteProtocolError("server disconnected"),
    ],
)
def test_a_passing_failure_is_tried_again(script: Any, failure: Any) -> None:
    script.answers = [failure, failure, ok()]
    assert post(client(script)) == {"ok": 1}
    assert len(script.requests) == 3
    assert json.loads(script.requests[2].content) == {"a": "好"}


def test_a_lasting_failure_names_the_address_without_its_password(script: Any) -> None:
    script.answers = [httpx.ConnectError("connection refused")] * 3
    with pytest.raises(ModelUnavailable, match=r"http://models\.example:8000 did not answer in 3 attempts.*connection refused") as caught:
        post(client(script))
    assert "secret" not in str(caught.value)


def test_no_retries_means_one_attempt(script: Any) -> None:
    script.answers = [httpx.Response(500, text="oops")]
    with pytest.raises(ModelUnavailable, match=r"one attempt.*HTTP 500: oops"):
        post(client(script, retries=0))


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured(script: Any, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    value = "7" if form == "seconds" else format_datetime(datetime.now(UTC) + timedelta(seconds=7), usegmt=True)
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("generators.models.http.asyncio.sleep", sleep)
    script.answers = [httpx.Response(429, headers={"retry-after": value}), ok()]
    post(client(script))
    assert slept == [pytest.approx(7, abs=1.5)]


def test_no_pause_goes_beyond_the_time_that_is_left(script: Any) -> None:
    script.answers = [httpx.Response(503, headers={"Retry-After": "30"}), ok()]
    with within(2.0), pytest.raises(ModelUnavailable, match=r"s that are left are too few to try again; the last failure: HTTP 503"):
        post(client(script))
    assert len(script.requests) == 1


@pytest.mark.parametrize("value", ["soon", "", "-3", "nan"])
def test_a_senseless_retry_after_is_no_obstacle(script: Any, value: str) -> None:
    script.answers = [httpx.Response(503, headers={"retry-after": value}), ok()]
    assert post(client(script)) == {"ok": 1}


def test_the_backoff_doubles(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("generators.models.http.asyncio.sleep", sleep)
    script.answers = [httpx.Response(500)] * 4 + [ok()]
    made = client(script, retries=4)
    made.pause = 0.5
    post(made)
    for number, seconds in enumerate(slept):
        assert 0.25 * 2**number <= seconds <= 0.5 * 2**number


@pytest.mark.parametrize(
    ("status", "body"), [(400, {"error": {"message": "bad value"}}), (404, {"detail": "bad value"}), (422, "bad value")]
)
def test_a_refusal_is_not_tried_again_and_gives_the_reason(script: Any, status: int, body: Any) -> None:
    script.answers = [httpx.Response(status, json=body)]
    with pytest.raises(ModelRefused, match=f"HTTP {status}: .*bad value"):
        post(client(script))


@pytest.mark.parametrize(
    "message",
    ["This model's maximum context length is 4096 tokens. However, your prompt contains 5000 input tokens", "context_length_exceeded"],
)
def test_too_long_a_prompt(script: Any, message: str) -> None:
    script.answers = [httpx.Response(400, json={"error": {"message": message}})]
    with pytest.raises(PromptTooLong, match="shorter passages"):
        post(client(script))


def test_a_redirect_is_not_followed(script: Any) -> None:
    script.answers = [httpx.Response(301, headers={"location": "http://169.254.169.254/"})]
    with pytest.raises(ModelRefused, match="redirects elsewhere"):
        post(client(script))
    assert len(script.requests) == 1


@pytest.mark.parametrize("body", [b"<html>welcome</html>", b"", b'{"a":', b"\xff\xfe"])
def test_what_is_not_json(script: Any, body: bytes) -> None:
    script.answers = [httpx.Response(200, content=body)]
    with pytest.raises(ModelError, match="not JSON"):
        post(client(script))


def test_the_key_is_sent_and_never_shown(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret\n")
    script.answers = [httpx.Response(401, json={"error": {"message": "bad key sk-very-secret"}})]
    made = client(script, api_key_env="MY_KEY")
    with pytest.raises(ModelRefused, match=r"bad key \*\*\*") as caught:
        post(made)
    assert script.requests[0].headers["authorization"] == "Bearer sk-very-secret"
    assert "sk-very" not in str(caught.value) + repr(made) + repr(vars(made))


def test_a_missing_key(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match=r"MY_KEY.*not set"):
        post(client(script, api_key_env="MY_KEY"))
    script.answers = [httpx.Response(401, json={"error": {"message": "no key"}})]
    with pytest.raises(ModelRefused, match=r"MY_KEY.*not set"):
        post(client(script, api_key_env="MY_KEY", key_required=False))
    assert script.requests[0].headers["authorization"].startswith("Basic")  # the user and password of the address


def test_a_key_that_no_header_can_carry(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-a\nX-Evil: 1")
    with pytest.raises(ConfigError, match="no HTTP header") as caught:
        post(client(script, api_key_env="MY_KEY"))
    assert "sk-a" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        *[
            {"url": url}
            for url in ("", "localhost:8000", "ftp://x/v1", "http://", "http://x:99999/", "http://x/v1?a=1", "http:\\\\x", None, 3)
        ],
        {"api_key_env": "sk-abc"},
        {"timeout": 0},
        {"timeout": float("nan")},
        {"retries": -1},
        {"max_connections": 0},
    ],
)
def test_bad_settings(change: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        client(None, **change)
    assert "sk-abc" not in str(caught.value)


def test_each_event_loop_has_its_own_connections(script: Any) -> None:
    script.answers = [ok(), ok()]
    made = client(script)

    async def call() -> None:
        await made.post("/x", {})

    asyncio.run(call())
    asyncio.run(call())  # a pool of the first loop would be unusable here
    assert len(made._connections) == 1


EVENTS = 'data: {"a":"x\u2028y好"}\r\n\r\n: comment\ndata:{"a":2}\n\ndata: [DONE]\n\n'.encode()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_however_they_are_cut_into_chunks(script: Any, size: int) -> None:
    async def chunks() -> Any:
        for start in range(0, len(EVENTS), size):
            yield EVENTS[start : start + size]

    script.answers = [httpx.Response(200, content=chunks())]
    assert stream(client(script)) == [{"a": "x\u2028y好"}, {"a": 2}]


def test_a_stream_that_breaks_before_its_first_event_is_asked_for_again(script: Any) -> None:
    script.answers = [httpx.Response(200, content=b""), httpx.Response(503), httpx.ConnectError("x"), httpx.Response(200, content=EVENTS)]
    assert len(stream(client(script, retries=3))) == 2
    assert len(script.requests) == 4


def test_a_stream_that_breaks_later_is_not_repeated(script: Any) -> None:
    script.answers = [httpx.Response(200, content=b'data: {"a":1}\n\ndata: {"a"')]
    events: list[Any] = []
    with pytest.raises(ModelUnavailable, match=r"broke off after 1 events.*not repeated"):
        stream(client(script), events)
    assert events == [{"a": 1}]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "the engine died", "code": 500}, ModelUnavailable),
        ({"message": "bad thing", "code": 400}, ModelRefused),
        ({"message": "maximum context length is 10", "code": 400}, PromptTooLong),
        ("the engine died", ModelUnavailable),
    ],
)
def test_an_error_within_a_stream(script: Any, error: Any, kind: type[Exception]) -> None:
    script.answers = [httpx.Response(200, content=f'data: {{"a":1}}\n\ndata: {json.dumps({"error": error})}\n\n'.encode())]
    with pytest.raises(kind, match=r"died|bad thing|context"):
        stream(client(script))


def test_an_event_that_is_not_json(script: Any) -> None:
    script.answers = [httpx.Response(200, content=b"data: {oops\n\n")]
    with pytest.raises(ModelError, match="not JSON"):
        stream(client(script))


def test_a_refused_stream(script: Any) -> None:
    script.answers = [httpx.Response(400, json={"error": {"message": "no such thing"}})]
    with pytest.raises(ModelRefused, match="no such thing"):
        stream(client(script))


@pytest.mark.parametrize(
    ("body", "message"), [("", "no reason"), ("[]", r"\[\]"), ('{"error":"x"}', "x"), ('{"message":"y"}', "y"), ("plain", "plain")]
)
def test_error_message(body: str, message: str) -> None:
    assert re.search(message, error_message(body))


class _Rough(BaseHTTPRequestHandler):
    """A server that misbehaves on the wire, as no scripted transport can."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/slow/x":
            threading.Event().wait(1.0)
            return
        self.send_response(200)
        self.send_header("content-length", "1000")
        self.end_headers()
        self.wfile.write(b'data: {"a":1}\n\n')  # and hangs up short of what it promised

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def rough() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Rough)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_is_down() -> None:
    with pytest.raises(ModelUnavailable, match=r"127\.0\.0\.1:9.*Cannot connect"):
        post(client(None, "http://127.0.0.1:9", retries=1))


def test_a_server_that_is_slow(rough: str) -> None:
    with pytest.raises(ModelUnavailable, match="Timeout on reading"):
        post(client(None, f"{rough}/slow", retries=1, timeout=0.05))


def test_a_server_that_hangs_up_within_an_answer(rough: str) -> None:
    with pytest.raises(ModelUnavailable, match="payload is not completed"):
        post(client(None, rough, retries=1))


def test_a_server_that_hangs_up_within_a_stream(rough: str) -> None:
    events: list[Any] = []
    with pytest.raises(ModelUnavailable, match="broke off after 1 events"):
        stream(client(None, rough), events)
    assert events == [{"a": 1}]
