"""A store of contexts over HTTP: what it gives, what it refuses, and that it stands behind the doors."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from rag.serve.contexts import contexts_app  # noqa: E402
from rag.serve.settings import Doors, Limits  # noqa: E402
from retrievers.context.build import build  # noqa: E402
from retrievers.context.numbers import checksum  # noqa: E402
from retrievers.context.store import ContextStore, text_hash  # noqa: E402
from retrievers.context.wire import LABEL  # noqa: E402
from tests.retrievers.context.fake import FakeEncoder, built, contexts  # noqa: E402

SECRET = "graft_a-secret-that-is-long-enough"
ODD = "docs/../a b?x=1&y=ü#§%2e"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    built(tmp_path / "store", 6)
    return tmp_path / "store"


def client(path: Path, **more: Any) -> TestClient:
    return TestClient(contexts_app(ContextStore(path, ram_bytes=0), **more), base_url="http://localhost")


def passage(http: TestClient, **query: str) -> Any:
    return http.get("/v1/contexts/passage", params=query)


@pytest.mark.parametrize("numbers", ["float16", "int8", "int4"])
def test_a_passage_comes_as_it_is_stored(tmp_path: Path, numbers: str) -> None:
    built(tmp_path / "store", 3, numbers)
    store = ContextStore(tmp_path / "store")
    http = client(tmp_path / "store")
    for id, text in contexts(3):
        answer = passage(http, id=id, text=text_hash(text))
        assert answer.status_code == 200
        label, tensors = json.loads(answer.headers[LABEL]), load(answer.content)
        assert (label["text"], label["sha256"]) == (text_hash(text), checksum(tensors))
        segment, row = store.state().places[id]
        assert all(torch.equal(tensors[name], tensor) for name, tensor in segment.load(row).items())
    shown = http.get("/v1/contexts").json()
    assert (shown["format"], shown["passages"], shown["model"]["weights"]) == (numbers, 3, "w" * 64)
    assert str(tmp_path) not in json.dumps(shown)
    assert http.get("/healthz").json() == {"status": "ok", "passages": 3}


def test_an_id_may_hold_anything(tmp_path: Path) -> None:
    build(tmp_path / "store", [(ODD, "a passage")], FakeEncoder())
    answer = passage(client(tmp_path / "store"), id=ODD)
    assert (answer.status_code, json.loads(answer.headers[LABEL])["text"]) == (200, text_hash("a passage"))


def test_what_is_not_there_has_changed_or_is_asked_wrongly(path: Path) -> None:
    http = client(path)
    told = lambda answer: (answer.status_code, answer.json()["error"]["code"])  # noqa: E731
    assert told(passage(http, id="nobody")) == (404, "absent")
    assert told(passage(http, id="p001", text=text_hash("another"))) == (409, "changed")
    for query in ("", "?id=", "?id=p001&id=p002", "?id=p001&text=a&text=b"):
        assert told(http.get(f"/v1/contexts/passage{query}")) == (400, "invalid_value")
    assert told(http.get("/v1/elsewhere")) == (404, "not_found")
    assert told(http.post("/v1/contexts")) == (405, "method_not_allowed")


def test_damage_is_an_error_without_paths_and_the_rest_is_served(path: Path) -> None:
    store = ContextStore(path)
    segment, row = store.state().places["p001"]
    file = segment.folder / "contexts.safetensors"
    data = bytearray(file.read_bytes())
    data[data.index(segment.load(row)["keys"].numpy().tobytes())] ^= 1
    file.write_bytes(bytes(data))
    http = client(path)
    answer = passage(http, id="p001")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "damaged")
    assert str(path) not in answer.text
    others = [id for id, _ in contexts(6) if id != "p001"]
    assert {passage(http, id=id).status_code for id in others} == {200}
    shutil.rmtree(segment.folder)
    assert passage(client(path), id="nobody").json()["error"]["code"] == "damaged"  # it may have been in what is gone


def test_a_commit_is_served_from_the_next_request_on(path: Path) -> None:
    http = client(path)
    assert passage(http, id="new").status_code == 404
    build(path, [("new", "a new passage"), ("p001", "changed since")], FakeEncoder(), prune=True)
    assert passage(http, id="new").status_code == 200
    assert passage(http, id="p001", text=text_hash("changed since")).status_code == 200
    assert passage(http, id="p002").status_code == 404


def test_it_stands_behind_the_doors(path: Path) -> None:
    http = client(path, doors=Doors(secret=SECRET, bind="127.0.0.1", per_minute=4))
    assert http.get("/healthz").status_code == 200
    assert passage(http, id="p001").status_code == 401
    known = {"Authorization": f"Bearer {SECRET}"}
    asked = [http.get("/v1/contexts/passage", params={"id": "p001"}, headers=known) for _ in range(6)]
    assert [answer.status_code for answer in asked] == [200] * 4 + [429] * 2
    assert asked[0].headers["x-content-type-options"] == "nosniff"
    assert http.get("/v1/contexts", headers={**known, "Host": "evil.example"}).status_code == 421


def test_only_so_many_are_sent_at_once(path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor
    from threading import Event

    store, inside, go_on = ContextStore(path, ram_bytes=0), Event(), Event()
    state = store.state

    def slow() -> Any:
        inside.set()
        go_on.wait(10)
        return state()

    store.state = slow  # type: ignore[method-assign]
    app = contexts_app(store, limits=Limits(running=1, waiting=0))
    with TestClient(app, base_url="http://localhost") as http, ThreadPoolExecutor(1) as threads:
        first = threads.submit(passage, http, id="p001")
        assert inside.wait(10)
        assert passage(http, id="p002").status_code == 429
        go_on.set()
        assert first.result().status_code == 200
