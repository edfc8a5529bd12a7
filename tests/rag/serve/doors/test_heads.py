"""Connections that never come to the point, at a real server."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from typer.testing import CliRunner

from rag.serve.app import create_app
from rag.serve.doors.heads import Heads
from tests.rag.serve.parts import Scripted, pipeline

ASK = b"GET /livez HTTP/1.1\r\nHost: x\r\n"


class Soon(Heads):
    seconds = 0.5


@contextmanager
def connections(most: int = 65_536) -> Iterator[int]:
    """The port of a server that waits half a second for a head."""
    config = uvicorn.Config(create_app(pipeline()), port=0, log_level="error", http=Soon, h11_max_incomplete_event_size=most)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5)


def closed_after(connection: socket.socket, piece: bytes = b"") -> float:
    """Seconds until the server hangs up, while ``piece`` is sent again and again."""
    started = time.monotonic()
    connection.settimeout(0.05)
    while time.monotonic() - started < 5:
        try:
            if piece:
                connection.sendall(piece)
            if connection.recv(1) == b"":
                break
        except TimeoutError:
            continue
        except OSError:
            break
    return time.monotonic() - started


def answered(connection: socket.socket) -> bytes:
    """The next answer, up to its last byte."""
    connection.settimeout(5)
    data = b""
    while not data.endswith(b"}"):
        data += connection.recv(65_536)
    return data


@pytest.mark.parametrize(("head", "piece"), [(b"", b""), (b"G", b""), (ASK, b""), (ASK, b"X: x\r\n"), (b"GET /", b"x")], ids=range(5))
def test_a_connection_without_a_request_is_closed_in_time(head: bytes, piece: bytes) -> None:
    with connections() as port, connect(port) as connection:
        connection.sendall(head)
        assert 0.2 < closed_after(connection, piece) < 3


def test_the_clock_starts_again_after_each_answer() -> None:
    with connections() as port, connect(port) as connection:
        for _ in range(4):
            connection.sendall(ASK + b"\r\n")
            assert answered(connection).startswith(b"HTTP/1.1 200")
            time.sleep(0.2)  # the pauses together are longer than a head may take
        connection.sendall(ASK)
        assert 0.2 < closed_after(connection, b"X: x\r\n") < 3


@pytest.mark.parametrize(
    "head", [b"GET /" + b"x" * 100_000, ASK + b"X: " + b"x" * 100_000, ASK + b"X: x\r\n" * 20_000], ids=["path", "value", "many"]
)
@pytest.mark.parametrize("after_a_request", [False, True])
def test_a_head_without_end_is_cut_off(head: bytes, after_a_request: bool) -> None:
    with connections(most=8_192) as port, connect(port) as connection:
        if after_a_request:
            connection.sendall(ASK + b"\r\n")
            assert answered(connection).startswith(b"HTTP/1.1 200")
        started = time.monotonic()
        try:
            connection.sendall(head)
            said = connection.recv(100)
        except OSError:  # it hung up while we still sent
            said = b"HTTP/1.1 431"
        assert said.startswith(b"HTTP/1.1 431")
        assert time.monotonic() - started < 0.4  # not by the clock


def test_a_long_head_that_ends_is_too_long_and_a_long_body_is_not() -> None:
    with connections(most=8_192) as port:
        with connect(port) as connection:
            connection.sendall(ASK + b"X: " + b"x" * 9_000 + b"\r\n\r\n")
            refused = answered(connection)
            assert refused.startswith(b"HTTP/1.1 431")
            assert json.loads(refused.partition(b"\r\n\r\n")[2])["error"]["code"] == "head_too_large"
        with connect(port) as connection:
            body = b'{"query": "suit"' + b" " * 200_000 + b"}"
            head = b"POST /v1/retrieve HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            for piece in (head[:-2], head[-2:] + body[:9_000], body[9_000:]):  # the end of the head in two pieces
                connection.sendall(piece)
                time.sleep(0.05)
            assert answered(connection).startswith(b"HTTP/1.1 200")
            connection.sendall((ASK + b"\r\n") * 300)  # many short heads in one piece are not one long one
            assert connection.recv(100).startswith(b"HTTP/1.1 200")


def test_many_that_wait_do_not_keep_others_out() -> None:
    with connections() as port:
        idle = [connect(port) for _ in range(200)]
        try:
            with connect(port) as connection:
                connection.sendall(ASK + b"\r\n")
                assert answered(connection).startswith(b"HTTP/1.1 200")
            assert all(closed_after(one) < 3 for one in idle)
        finally:
            for one in idle:
                one.close()


def test_a_request_and_its_answer_may_take_longer() -> None:
    with connections() as port, connect(port) as connection:
        body = b'{"query": "suit"}'
        head = b"POST /v1/retrieve HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head)
        time.sleep(0.8)
        connection.sendall(body)
        assert answered(connection).startswith(b"HTTP/1.1 200")


def test_rag_serve_has_this_door(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rag.cli.main import app
    from retrievers.corpus import Corpus

    given: dict[str, Any] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **options: given.update(options))
    monkeypatch.setattr("rag.serve.observe.logs.configure_logging", lambda *_: None)  # it is for the process as a whole
    monkeypatch.setattr("rag.cli.serve.make_model", lambda *_: Scripted())
    Corpus.create(tmp_path / "shelf", encoder=None)
    result = CliRunner().invoke(app, ["serve", "--corpus", str(tmp_path / "shelf")], prog_name="rag")
    assert result.exit_code == 0, result.output
    assert given["http"] == f"{Heads.__module__}:{Heads.__name__}"
    assert given["h11_max_incomplete_event_size"] <= 65_536
