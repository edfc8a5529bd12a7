"""Documents over HTTP, through the real routes, the real parser and a real corpus."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from rag.serve.documents.receiving import UploadLimits
from rag.serve.documents.spool import SpoolFile
from retrievers.bm25 import BM25
from retrievers.corpus import durable
from tests.rag.serve.documents.parts import Kit, billion_laughs, ended, form, kit, pdf, zip_bomb

BOUNDARY = {"content-type": "multipart/form-data; boundary=b"}


def part(name: str = "a.txt", data: bytes = b"text", head: bytes | None = None) -> bytes:
    head = b'Content-Disposition: form-data; name="file"; filename="%s"' % name.encode() if head is None else head
    return b"--b\r\n" + head + b"\r\n\r\n" + data + b"\r\n"


def clean(made: Kit) -> bool:
    """Whether nothing of an upload is left, on disk or in the account of the room."""
    return not list(made.spool.folder.iterdir()) and made.spool.used == 0


def test_files_are_indexed_replaced_listed_shown_and_deleted(tmp_path: Path) -> None:
    made = kit(tmp_path)
    with TestClient(made.app) as http:
        files = form(("safety/suits.md", b"# Suits\n\nThey last 90 minutes."), ("t.csv", b"id,text\n1,one\n2,two\n"), ("a.pdf", pdf()))
        reply = http.post("/v1/documents", files=files)
        assert reply.json()["kind"] == "documents"
        job = ended(http, reply)
        assert (job["status"], job["progress"]) == ("done", {"done": 3, "total": 3, "unit": "files"})
        assert job["result"] == {
            "added": 4,
            "updated": 0,
            "unchanged": 0,
            "deleted": 0,
            "passages": 4,
            "skipped": [],
            "notes": [],
        }
        assert made.ids() == ["a.pdf", "safety/suits.md", "t.csv#1", "t.csv#2"]
        assert [hit.passage.document for hit in BM25(made.corpus).search("suits", k=1)] == ["safety/suits.md"]

        files = form(("safety/suits.md", b"# Suits\n\nThey last 60 minutes."), ("t.csv", b"id,text\n2,two\n"), ("a.pdf", pdf()))
        result = ended(http, http.post("/v1/documents", files=files))["result"]
        assert (result["added"], result["updated"], result["unchanged"], result["deleted"]) == (0, 1, 2, 1)

        page = http.get("/v1/documents", params={"limit": 2}).json()
        assert [entry["id"] for entry in page["data"]] == ["a.pdf", "safety/suits.md"]
        assert page["data"][1]["title"] == "Suits"
        assert str(tmp_path) not in json.dumps(page)
        rest = http.get("/v1/documents", params={"limit": 2, "after": page["next"]}).json()
        assert ([entry["id"] for entry in rest["data"]], rest["next"]) == (["t.csv#2"], None)

        shown = http.get("/v1/documents/safety/suits.md").json()
        assert (shown["id"], shown["passages"]) == ("safety/suits.md", 1)
        assert "60 minutes" in shown["content"][0]["text"]

        assert http.delete("/v1/documents/safety/suits.md").json()["deleted"] == 1
        assert http.delete("/v1/documents/t.csv").json()["deleted"] == 1
        for reply in (http.delete("/v1/documents/safety/suits.md"), http.get("/v1/documents/safety/suits.md"), http.get("/v1/documents/")):
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
        assert made.ids() == ["a.pdf"]
        assert clean(made)
    made.corpus.verify()


def test_documents_can_be_sent_as_json(tmp_path: Path) -> None:
    made = kit(tmp_path)
    sent = {"documents": [{"id": "a/b", "text": "服装 ok", "title": "T", "metadata": {"year": 1999, "ok": True, "x": None}}]}
    with TestClient(made.app) as http:
        job = ended(http, http.post("/v1/documents", json=sent))
        assert (job["result"]["added"], job["progress"]) == (1, {"done": 1, "total": 1, "unit": "documents"})
        assert ended(http, http.post("/v1/documents", json=sent))["result"]["unchanged"] == 1
        shown = http.get("/v1/documents/a/b").json()
        assert (shown["title"], shown["metadata"]) == ("T", {"year": 1999, "ok": True, "x": None})
        assert clean(made)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'{"documents": []}',
        b'{"documents": [{"id": "a"}]}',
        b'{"documents": [{"id": "a", "text": 7}]}',
        b'{"documents": [{"id": "a", "text": "  "}]}',
        b'{"documents": [{"id": "a", "text": "x\\u0000"}]}',
        b'{"documents": [{"id": "a", "text": "\\ud800"}]}',
        b'{"documents": [{"id": "../a", "text": "x"}]}',
        b'{"documents": [{"id": "a", "text": "x", "metadata": {"a": NaN}}]}',
        b'{"documents": [{"id": "a", "text": "x", "metadata": {"a": 1e400}}]}',
        b'{"documents": [{"id": "a", "text": "x", "metadata": {"a": 99999999999999999999}}]}',
        b'{"documents": [{"id": "a", "text": "x", "metadata": {"": 1}}]}',
        b'{"documents": [{"id": "a", "text": "x", "metadata": {"a": [1]}}]}',
        b'{"documents": [{"id": "a", "text": "x", "path": "/etc"}]}',
        b'{"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}',
        b'{"documents": ' + b"[" * 100_000,
    ],
)
def test_wrong_json_is_refused_and_nothing_is_kept(tmp_path: Path, body: bytes) -> None:
    made = kit(tmp_path)
    with TestClient(made.app) as http:
        reply = http.post("/v1/documents", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] in ("invalid_value", "invalid_name")
        assert http.get("/v1/jobs").json()["data"] == []
        assert clean(made)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"--b--\r\n", 400),
        (part(), 400),  # without the last boundary
        (part() + b"--b", 400),
        (b"garbage", 400),
        (part("../a.txt") + b"--b--\r\n", 400),
        (part("/etc/passwd") + b"--b--\r\n", 400),
        (part("C:\\a.txt") + b"--b--\r\n", 400),
        (part("a\\\\b.txt") + b"--b--\r\n", 400),
        (part("NUL.txt") + b"--b--\r\n", 400),
        (part("") + b"--b--\r\n", 400),
        (part("x" * 256) + b"--b--\r\n", 400),
        (part() + part() + b"--b--\r\n", 400),  # two of the same name
        (part(head=b'Content-Disposition: form-data; name="file"') + b"--b--\r\n", 400),
        (part(head=b"Content-Disposition: form-data; name=\"file\"; filename*=utf-8''a.txt") + b"--b--\r\n", 400),
        (part(head=b'Content-Disposition: form-data; name="file"; filename="a"; filename="b"') + b"--b--\r\n", 400),
        (part(head=b'Content-Disposition: form-data; name="other"; filename="a"') + b"--b--\r\n", 400),
        (part(head=b'Content-Disposition: attachment; name="file"; filename="a"') + b"--b--\r\n", 400),
        (part(head=b'Content-Disposition: form-data; name="file"; filename="\xff"') + b"--b--\r\n", 400),
        (part(head=b"X: " + b"x" * 5_000) + b"--b--\r\n", 400),
        (part(head=b"\r\n".join(b"X%d: x" % number for number in range(20))) + b"--b--\r\n", 400),
        (part(head=b"") + b"--b--\r\n", 400),
        (b"".join(part(f"{number}.txt", b"") for number in range(4)) + b"--b--\r\n", 413),
        (part(data=b"x" * 2_000) + b"--b--\r\n", 413),
        (b"".join(part(f"{number}.txt", b"x" * 900) for number in range(3)) + b"x" * 3_000, 413),
    ],
    ids=range(25),
)
def test_wrong_forms_are_refused_and_nothing_is_kept(tmp_path: Path, body: bytes, status: int) -> None:
    made = kit(tmp_path, uploads=UploadLimits(file_bytes=1_000, request_bytes=6_000, files=3))
    with TestClient(made.app) as http:
        reply = http.post("/v1/documents", content=iter([body[start : start + 7] for start in range(0, len(body), 7)]), headers=BOUNDARY)
        assert reply.status_code == status, reply.text
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
        assert str(tmp_path) not in reply.text
        assert http.get("/v1/jobs").json()["data"] == []
        assert clean(made)


def test_other_types_encodings_and_lengths_are_refused(tmp_path: Path) -> None:
    made = kit(tmp_path)
    body = part() + b"--b--\r\n"
    with TestClient(made.app) as http:
        for headers, status in (
            ({"content-type": "text/plain"}, 415),
            ({}, 415),
            ({**BOUNDARY, "content-encoding": "gzip"}, 415),
            ({"content-type": "application/json", "content-encoding": "br"}, 415),
            ({"content-type": "multipart/form-data"}, 400),
            ({"content-type": f"multipart/form-data; boundary={'b' * 71}"}, 400),
            ({**BOUNDARY, "content-length": "64000001"}, 413),
            ({**BOUNDARY, "content-length": "9" * 5_000}, 413),
            ({**BOUNDARY, "content-length": "-1"}, 400),
        ):
            assert http.post("/v1/documents", content=body, headers=headers).status_code == status, headers
        assert clean(made)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=1e9", "limit=NaN", "skip=1", f"after={'x' * 3_000}"])
def test_wrong_pages_are_refused(tmp_path: Path, query: str) -> None:
    with TestClient(kit(tmp_path).app) as http:
        assert http.get(f"/v1/documents?{query}").status_code == 400


def test_hostile_files_are_left_out_and_the_others_indexed(tmp_path: Path) -> None:
    made = kit(tmp_path)
    files = form(
        ("good.md", b"Suits last."),
        ("bomb.docx", zip_bomb()),
        ("laughs.docx", billion_laughs()),
        ("circular.pdf", pdf(circular=True)),
        ("script.pdf", pdf(script="app.alert(1)")),
        ("page.pdf", b"<!doctype html><html></html>"),
        ("zeros.txt", b"a\0b"),
        ("empty.txt", b""),
        ("last.md", b"Helmets last."),
    )
    with TestClient(made.app) as http:
        job = ended(http, http.post("/v1/documents", files=files))
        assert job["status"] == "done"
        assert made.ids() == ["good.md", "last.md", "script.pdf"]
        skipped = {skip["name"]: skip["reason"] for skip in job["result"]["skipped"]}
        assert list(skipped) == ["bomb.docx", "laughs.docx", "circular.pdf", "page.pdf", "zeros.txt", "empty.txt"]
        assert "would unpack to" in skipped["bomb.docx"]
        assert str(tmp_path) not in json.dumps(job)
        assert clean(made)


def test_two_uploads_of_one_document_at_once(tmp_path: Path) -> None:
    made = kit(tmp_path)
    texts = [f"version {number} ".encode() * 2_000 for number in range(2)]
    with TestClient(made.app) as http:
        replies: list[Any] = [None, None]

        def send(number: int) -> None:
            replies[number] = http.post("/v1/documents", files=form(("a.txt", texts[number])))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        jobs = [ended(http, reply) for reply in replies]
        assert sorted((job["result"]["added"], job["result"]["updated"]) for job in jobs) == [(0, 1), (1, 0)]
        held = made.text("a.txt")
        assert ("version 0" in held) != ("version 1" in held)
        assert made.ids() == ["a.txt"]
    made.corpus.verify()


def test_a_queue_that_is_full_refuses_before_the_body(tmp_path: Path) -> None:
    made = kit(tmp_path, jobs_options={"waiting": 1})
    with TestClient(made.app) as http, made.corpus.writer():  # another writer, so that the first job waits
        for _ in range(2):
            reply = http.post("/v1/documents", files=form(("a.md", b"Suits.")))
            while http.get(reply.headers["location"]).json()["status"] == "queued" and len(http.get("/v1/jobs").json()["data"]) < 2:
                time.sleep(0.01)
        reply = http.post("/v1/documents", files=form(("a.md", b"Suits.")))
        assert (reply.status_code, reply.headers["retry-after"], reply.headers["connection"]) == (429, "10", "close")
    assert not made.spool.folder.exists()


def test_a_cancelled_job_says_that_what_was_committed_stays(tmp_path: Path) -> None:
    made = kit(tmp_path, batch_passages=10)
    rows = b"id,text\n" + b"".join(b"%d,row %d\n" % (number, number) for number in range(20_000))
    with TestClient(made.app) as http:
        reply = http.post("/v1/documents", files=form(("t.csv", rows), ("u.csv", rows)))
        while not made.ids():
            time.sleep(0.005)
        assert http.delete(reply.headers["location"]).json()["status"] == "cancelled"
        job = http.get(reply.headers["location"]).json()
        assert job["result"]["notes"] == ["cancelled: what is counted here was committed and stays, the rest was not written"]
        assert job["result"]["added"] == len(made.ids()) < 20_000
        assert clean(made)
        assert ended(http, http.post("/v1/documents", files=form(("a.md", b"Suits."))))["status"] == "done"


def test_a_full_disk_is_507_and_later_uploads_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = kit(tmp_path)
    with TestClient(made.app) as http:
        for step, status in (("write", 507), ("close", 507)):
            with monkeypatch.context() as patch:
                patch.setattr(SpoolFile, step, full)
                for sent in ({"files": form(("a.md", b"x"))}, {"json": {"documents": [{"id": "a", "text": "x"}]}}):
                    reply = http.post("/v1/documents", **sent)  # type: ignore[arg-type]
                    assert (reply.status_code, reply.json()["error"]["code"]) == (status, "disk_full")
        with monkeypatch.context() as patch:
            patch.setattr(durable, "publish", full)
            job = ended(http, http.post("/v1/documents", files=form(("a.md", b"Suits."))))
            assert (job["status"], job["error"]["code"]) == ("failed", "disk_full")
            assert "committed and stays" in job["result"]["notes"][0]
        assert made.ids() == []
        assert clean(made)
        assert ended(http, http.post("/v1/documents", files=form(("a.md", b"Suits."))))["result"]["added"] == 1


# Below HTTP clients: callers that send for ever, too slowly, or leave.

SCOPE: dict[str, Any] = {
    "type": "http",
    "asgi": {"version": "3.0"},
    "http_version": "1.1",
    "method": "POST",
    "scheme": "http",
    "query_string": b"",
    "root_path": "",
    "path": "/v1/documents",
    "raw_path": b"/v1/documents",
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 80),
    "headers": [(b"content-type", b"multipart/form-data; boundary=b")],
}


async def call(made: Kit, receive: Callable[[], Awaitable[Any]], headers: tuple[tuple[bytes, bytes], ...] = ()) -> int:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await asyncio.wait_for(made.app({**SCOPE, "headers": [*SCOPE["headers"], *headers]}, receive, send), 20)
    return int(sent[0]["status"])


def endless(piece: bytes, first: bytes = b"", pause: float = 0) -> tuple[Callable[[], Awaitable[Any]], list[int]]:
    """A caller that never stops sending ``piece``, and how many bytes were taken from it."""
    taken: list[int] = []

    async def receive() -> Any:
        await asyncio.sleep(pause)
        taken.append(len(piece))
        return {"type": "http.request", "body": piece if len(taken) > 1 else first + piece, "more_body": True}

    return receive, taken


def test_a_length_above_the_limit_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    receive, taken = endless(b"x")
    assert asyncio.run(call(kit(tmp_path), receive, ((b"content-length", b"64000001"),))) == 413
    assert taken == []


@pytest.mark.parametrize("first", [part(data=b"")[:-2], b"--b\r\n", b"--b\r\nX: "], ids=["a file", "no head", "a head"])
def test_a_body_without_end_is_cut_off(tmp_path: Path, first: bytes) -> None:
    made = kit(tmp_path, uploads=UploadLimits(file_bytes=1_000_000, request_bytes=2_000_000))
    receive, taken = endless(b"x" * 50_000, first)
    assert asyncio.run(call(made, receive)) in (400, 413)
    assert sum(taken) <= 1_200_000
    assert clean(made)


EMPTY = {"empty": b"--b\r\n\r\n\r\n", "bare": b"--b\r\n", "unnamed": part("", b""), "named": part(data=b"")}


@pytest.mark.parametrize("kind", EMPTY)
def test_a_million_empty_parts_are_refused_early(tmp_path: Path, kind: str) -> None:
    made = kit(tmp_path)
    receive, taken = endless(EMPTY[kind] * 10_000)
    assert asyncio.run(call(made, receive)) in (400, 413)
    assert len(taken) <= 2
    assert clean(made)


def test_an_upload_that_stops_or_trickles_is_given_up_in_time(tmp_path: Path) -> None:
    made = kit(tmp_path, uploads=UploadLimits(idle_seconds=0.2, seconds=0.6))

    async def silent() -> Any:
        await asyncio.Event().wait()

    started = time.monotonic()
    assert asyncio.run(call(made, silent)) == 408
    assert time.monotonic() - started < 0.5
    receive, _ = endless(b"x", part(data=b"")[:-2], pause=0.05)
    assert asyncio.run(call(made, receive)) == 408
    assert 0.7 < time.monotonic() - started < 5
    assert clean(made)


def test_a_caller_that_leaves_leaves_nothing(tmp_path: Path) -> None:
    made = kit(tmp_path)
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": part(data=b"x" * 100_000), "more_body": True}]

    async def receive() -> Any:
        return messages.pop()

    assert asyncio.run(call(made, receive)) == 499
    assert clean(made)
    assert made.jobs.all() == []


def test_a_refused_upload_ends_its_connection(tmp_path: Path) -> None:
    """A real server and a caller that says it sends a gigabyte: the answer comes at once, and the connection is closed."""
    import uvicorn

    made = kit(tmp_path)
    server = uvicorn.Server(uvicorn.Config(made.app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            head = b"POST /v1/documents HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            connection.sendall(head + b"Content-Length: 1000000000\r\n\r\n")
            answer = b""
            while piece := connection.recv(65_536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"request_too_large" in answer
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
