"""Jobs over HTTP, and their events as a browser hears them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from retrievers.corpus import Corpus
from tests.rag.serve.documents.parts import ended, form, kit, serve


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.split("\n") if line.startswith("data: ")]


def test_events_tell_each_step_and_end_with_the_job(tmp_path: Path) -> None:
    with TestClient(kit(tmp_path).app) as http:
        reply = http.post("/v1/documents", files=form(("a.md", b"Suits."), ("b.md", b"Helmets."), ("c.pdf", b"no")))
        heard = http.get(f"{reply.headers['location']}/events")
        assert heard.headers["content-type"].startswith("text/event-stream")
        states = events(heard.text)
        assert all(state["status"] in ("queued", "running") for state in states[:-1])
        assert states[-1]["status"] == "done"
        assert states[-1] == http.get(reply.headers["location"]).json()
        assert len(states) > 1
        assert events(http.get(f"{reply.headers['location']}/events").text) == states[-1:]  # one who comes late hears the end
        *others, last = heard.text.strip().split("\n\n")
        assert [event for event in (*others, last) if "id: end" in event] == [last]
        again = http.get(f"{reply.headers['location']}/events", headers={"Last-Event-ID": "end"})  # an EventSource, by itself
        assert (again.status_code, again.text) == (204, "")


def test_jobs_are_listed_and_unknown_ones_are_404(tmp_path: Path) -> None:
    with TestClient(kit(tmp_path).app) as http:
        jobs = [ended(http, http.post("/v1/documents", files=form((name, b"x")))) for name in ("a", "b")]
        assert http.get("/v1/jobs").json() == {"object": "list", "data": jobs[::-1]}
        assert http.delete(f"/v1/jobs/{jobs[0]['id']}").json() == jobs[0]
        for method, path in (("GET", "/v1/jobs/x"), ("DELETE", "/v1/jobs/x"), ("GET", "/v1/jobs/x/events")):
            reply = http.request(method, path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")


def test_listeners_are_bounded_and_the_stream_ends_when_the_server_stops(tmp_path: Path) -> None:
    process, port = serve(tmp_path, jobs_options={"listeners": 1})
    corpus = Corpus.open(tmp_path / "corpus")
    try:
        with corpus.writer(), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20) as http:  # another writer: the job goes on
            at = http.post("/v1/documents", files=form(("a.md", b"Suits."))).headers["location"]
            with http.stream("GET", f"{at}/events") as heard:
                lines = heard.iter_lines()
                assert next(lines).startswith("data: ")
                refused = http.get(f"{at}/events")
                assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
                process.terminate()
                started = time.monotonic()
                list(lines)
            assert process.wait(20) in (0, -15)
            assert time.monotonic() - started < 10
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert list(corpus.documents()) == []
    assert not list(tmp_path.glob("spool/run-*"))
    corpus.close()
