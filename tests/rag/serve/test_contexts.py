"""Stores of contexts over HTTP, alone and beside pipelines: what they give, what is refused, and that they stand behind the doors."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from jsonschema import Draft202012Validator  # noqa: E402
from safetensors.torch import load  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from generators.passages import passage_data  # noqa: E402
from generators.stitched import Stitched  # noqa: E402
from rag.core.pipeline import Pipeline  # noqa: E402
from rag.serve.app import create_app  # noqa: E402
from rag.serve.contexts import contexts_app  # noqa: E402
from rag.serve.inspection import corpora_of, stores_of  # noqa: E402
from rag.serve.settings import Doors, Limits, Uploads  # noqa: E402
from retrievers.bm25 import BM25  # noqa: E402
from retrievers.context.build import build  # noqa: E402
from retrievers.context.encoded import Encoded  # noqa: E402
from retrievers.context.numbers import checksum  # noqa: E402
from retrievers.context.remote import RemoteContexts  # noqa: E402
from retrievers.context.store import ContextStore, text_hash  # noqa: E402
from retrievers.context.wire import LABEL  # noqa: E402
from retrievers.corpus import Corpus  # noqa: E402
from tests.generators.models.conftest import tiny_folder  # noqa: E402, F401
from tests.rag.serve.documents.parts import ended  # noqa: E402
from tests.rag.serve.parts import OneShelf, listening, pipeline  # noqa: E402
from tests.retrievers.context.fake import MODEL, FakeEncoder, built, contexts  # noqa: E402

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


def told(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def reading(store: Any, **more: Any) -> Pipeline:
    """search, called by an answer that reads ``store``. No model is loaded before the first question."""
    pipe = Pipeline().add("search", OneShelf()).add("answer", Stitched(store, **more))
    return pipe.connect("search", "answer.retriever")


def beside(pipes: Any, **more: Any) -> TestClient:
    return TestClient(create_app(pipes, **more), base_url="http://localhost")


def test_a_server_of_pipelines_serves_the_store_that_one_reads(path: Path) -> None:
    http, alone = beside(reading(str(path))), client(path)
    assert http.get("/v1/contexts").json() == alone.get("/v1/contexts").json()
    assert http.get("/v1/contexts").json()["stores"] == ["store"]
    for id, text in contexts(6):
        answer, other = passage(http, id=id, text=text_hash(text)), passage(alone, id=id)
        assert (answer.status_code, answer.content, answer.headers[LABEL]) == (200, other.content, other.headers[LABEL])
    assert told(passage(http, id="nobody")) == (404, "absent")
    assert told(passage(http, id="p001", text=text_hash("another"))) == (409, "changed")
    assert told(http.get("/v1/contexts", params={"id": "p001"})) == (400, "invalid_value")


def test_without_a_store_there_is_none_to_ask() -> None:
    remote = RemoteContexts("http://shelf:8090", MODEL)
    for http in (beside(pipeline()), beside(reading(remote)), beside(reading(None, attention="full"))):
        for answer in (http.get("/v1/contexts"), passage(http, id="p001"), http.get("/v1/contexts", params={"store": "store"})):
            assert told(answer) == (404, "not_found")
            assert set(answer.json()) == {"error"}


def test_several_stores_are_told_apart_by_name(tmp_path: Path) -> None:
    for place, count in (("one/store", 2), ("two/store", 3), ("more", 4)):
        built(tmp_path / place, count)
    given = [str(tmp_path / "one/store"), ContextStore(tmp_path / "two/store"), f"{tmp_path}/one/../more", str(tmp_path / "more")]
    http = beside({f"p{number}": reading(one) for number, one in enumerate(given)})
    names = ["store", "store-2", "more"]
    for name, count in zip(names, (2, 3, 4), strict=True):
        shown = http.get("/v1/contexts", params={"store": name}).json()
        assert (shown["store"], shown["passages"], shown["stores"]) == (name, count, names)
        last = f"p{count - 1:03d}"
        assert passage(http, id=last, store=name).status_code == 200
    assert http.get("/v1/contexts").json()["store"] == "store"
    assert told(passage(http, id="p003")) == (404, "absent")
    unknown = http.get("/v1/contexts", params={"store": str(tmp_path / "more")})
    assert told(unknown) == (404, "not_found")
    assert "this server has: store, store-2, more" in unknown.json()["error"]["message"]


def test_an_open_store_is_no_corpus(path: Path) -> None:
    pipe = reading(ContextStore(path))
    assert [type(corpus) for corpus in corpora_of(pipe)] == [OneShelf]
    assert [store.folder for store in stores_of([pipe])] == [path]


def test_a_store_that_cannot_be_opened_is_an_error_without_its_path_until_it_can(tmp_path: Path) -> None:
    http = beside(reading(str(tmp_path / "store")))
    for answer in (http.get("/v1/contexts"), passage(http, id="p001")):
        assert told(answer) == (500, "corpus_error")
        assert str(tmp_path) not in answer.text
    built(tmp_path / "store", 6)
    assert http.get("/v1/contexts").json()["passages"] == 6


def test_beside_pipelines_a_key_is_asked_for_too(path: Path) -> None:
    http = beside(reading(str(path)), doors=Doors(secret=SECRET))
    assert (http.get("/v1/contexts").status_code, passage(http, id="p001").status_code) == (401, 401)
    assert http.get("/v1/contexts", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200


def test_what_is_answered_is_as_documented(path: Path) -> None:
    http = beside(reading(str(path)))
    document = http.get("/openapi.json").json()
    paths, shared = document["paths"], document["components"]
    one, whole = paths["/v1/contexts/passage"]["get"], paths["/v1/contexts"]["get"]
    schema = whole["responses"]["200"]["content"]["application/json"]["schema"]
    check = Draft202012Validator({**schema, "components": shared})
    check.validate(http.get("/v1/contexts").json())
    assert not check.is_valid({**http.get("/v1/contexts").json(), "model": None})
    assert {part["name"] for part in one["parameters"]} == {"id", "text", "store"}
    assert passage(http, id="p001").headers["content-type"] in one["responses"]["200"]["content"]
    queries: list[dict[str, str]] = [
        {},
        {"id": "nobody"},
        {"id": "p001", "text": "x"},
        {"id": "p001", "store": "y"},
        {"id": "p001", "y": "z"},
    ]
    for query, status in zip(queries, (400, 404, 409, 404, 400), strict=True):
        answer = passage(http, **query)
        assert answer.status_code == status
        error = one["responses"][str(status)]["content"]["application/json"]["schema"]
        Draft202012Validator({**error, "components": shared}).validate(answer.json())


def test_a_reader_elsewhere_reads_from_a_server_of_pipelines(path: Path) -> None:
    ids, texts = zip(*contexts(3), strict=True)
    with listening(create_app(reading(str(path)))) as url:
        shelf = RemoteContexts(url, MODEL)
        shelf.check()
        assert all(isinstance(one, Encoded) for one in shelf.get(ids, texts))


def test_what_was_uploaded_since_is_encoded_anew_and_never_read_from_the_store(tmp_path: Path, tiny_folder: Path) -> None:  # noqa: F811
    from generators.models.stitched.encoder import LocalEncoder

    folder, store = wide(tiny_folder, tmp_path / "model"), tmp_path / "store"
    corpus = Corpus.create(tmp_path / "corpus", encoder=None)
    answering = Stitched(str(store), folder, k=2, max_tokens=4, device="cpu")
    pipe = Pipeline().add("search", BM25(corpus)).add("answer", answering).connect("search", "answer.retriever")
    with beside(pipe, uploads=Uploads(corpus, tmp_path / "spool")) as http:

        def upload(cat: str) -> None:
            documents = [{"id": "cat", "text": cat}, {"id": "dog", "text": "the dog ran to the cat"}]
            assert ended(http, http.post("/v1/documents", json={"documents": documents}))["status"] == "done"

        def asked() -> tuple[float, float, str]:
            run = asyncio.run(pipe.aexplain("Where is the cat?"))
            return run.trace.total("contexts_hit"), run.trace.total("contexts_missed"), run.value.text

        def now() -> dict[str, str]:
            return {one.id: passage_data(one) for one in corpus.each_passage()}

        upload("the cat sat on the mat")
        build(store, list(now().items()), LocalEncoder(folder, device="cpu"))
        (cat,) = (id for id, text in now().items() if "mat" in text)
        assert asked()[:2] == (2, 0)
        assert passage(http, id=cat, text=text_hash(now()[cat])).status_code == 200

        upload("the cat sat on the hat")
        assert told(passage(http, id=cat, text=text_hash(now()[cat]))) == (409, "changed")
        hits, misses, text = asked()
        assert (hits, misses) == (1, 1)
        build(store, list(now().items()), LocalEncoder(folder, device="cpu"), prune=True)
        assert passage(http, id=cat, text=text_hash(now()[cat])).status_code == 200
        fresh = Stitched(str(store), folder, k=2, max_tokens=4, device="cpu")
        anew = Pipeline().add("search", BM25(corpus)).add("answer", fresh).connect("search", "answer.retriever")
        run = anew.explain("Where is the cat?")
        assert (run.trace.total("contexts_hit"), run.value.text) == (2, text)


def wide(model: Path, folder: Path) -> str:
    """A copy of ``model`` with a window that holds a prompt."""
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 384}))
    return str(folder)
