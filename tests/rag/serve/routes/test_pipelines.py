from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from starlette.testclient import TestClient

from generators.cited import Cited
from generators.models.vllm import VLLM
from rag.core.pipeline import Pipeline
from rag.serve.app import create_app
from rag.serve.doors.keyfile import KeyFile
from rag.serve.openai_answers import Drawing, PipelineList
from rag.serve.routes.pipelines import MAX_YAML
from rag.serve.settings import Doors
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from tests.rag.serve.parts import pipeline

YAML = """
nodes:
  search: {type: BM25, corpus: {type: Corpus, path: "%s"}}
  answer: {type: Cited, model: {type: VLLM, api_key_env: THE_KEY}}
edges:
  - search -> answer.retriever
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus.create(tmp_path / "corpus", encoder=None)


def client(pipe: Any, **options: Any) -> TestClient:
    return TestClient(create_app(pipe, **options), base_url="http://localhost", raise_server_exceptions=False)


def draw(http: TestClient, text: str, **options: Any) -> Any:
    return http.post("/v1/pipelines/draw", json={"yaml": text}, **options)


def test_each_pipeline_with_its_graph_its_pictures_and_its_yaml(corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "s3cret-of-the-model")
    real = Pipeline().add("search", BM25(corpus)).add("answer", Cited(VLLM(api_key_env="THE_KEY"))).connect("search", "answer.retriever")
    reply = client({"real": real, "scripted": pipeline()}).get("/v1/pipelines")
    body = reply.json()
    assert PipelineList.model_validate(body, strict=True).model_dump() == body
    one, other = body["data"]
    assert [one["id"], other["id"]] == ["real", "scripted"]
    assert one["nodes"] == [{"name": "search", "type": "BM25"}, {"name": "answer", "type": "Cited"}]
    assert one["edges"] == [{"source": "search", "output": "", "target": "answer", "port": "retriever", "call": True, "loop": None}]
    assert one["mermaid"] == real.draw()
    groups = [group.findtext("{*}text") for group in ElementTree.fromstring(one["svg"]).findall("{*}g")]
    assert groups == [node["name"] for node in one["nodes"]]  # the page finds a node's shape by this order
    assert (one["yaml"], one["note"]) == (real.to_yaml(), None)
    assert "THE_KEY" in one["yaml"]
    assert "s3cret" not in reply.text
    assert other["yaml"] is None
    assert "Scripted" in other["note"] or "OneShelf" in other["note"]


def test_an_edited_pipeline_is_drawn_and_not_kept(corpus: Corpus) -> None:
    http = client(pipeline())
    before = http.get("/v1/pipelines").json()
    body = draw(http, YAML % corpus.path).json()
    assert Drawing.model_validate(body, strict=True).model_dump() == body
    assert ([node["name"] for node in body["nodes"]], body["problem"]) == (["search", "answer"], None)
    assert "answer" in body["svg"]
    assert "BM25" in body["mermaid"]
    assert http.get("/v1/pipelines").json() == before


@pytest.mark.parametrize(("text", "lacking"), [("nodes: {fuse: {type: Fuse}}", "'fuse.rankings'"), ("nodes: {}", "no nodes")])
def test_a_graph_that_lacks_something_is_drawn_with_what_it_lacks(text: str, lacking: str) -> None:
    body = draw(client(pipeline()), text).json()
    assert lacking in body["problem"]
    assert body["svg"].startswith("<svg")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "expected a mapping"),
        ("nodes: [", "not valid YAML"),
        ("pipeline.yaml", "expected a mapping"),
        ("nodes: {a: {type: Nothing}}", "nodes.a"),
        ("nodes: {a: {type: !!python/object/apply:os.system [id]}}", "tag"),
        ("nodes: {a: &x {type: Cited}, b: *x}", "aliases"),
        ("nodes: {a: {type: BM25, corpus: /no/such/folder}}", "'corpus' takes a component"),
        ("nodes: {a: {type: Cited, model: {type: VLLM}, k: 0}}", "nodes.a"),
        ("nodes: {a: {type: Cited, model: {type: VLLM}}}\nedges: [b -> a.retriever]", "'b'"),
        ("nodes: {'{{ 7*7 }}': {type: Cited, model: {type: VLLM}}}", "node name"),
        ("[" * 5_000, "nested"),
    ],
)
def test_what_is_wrong_with_a_text_is_said(text: str, place: str) -> None:
    reply = draw(client(pipeline()), text)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_yaml")
    assert place in reply.json()["error"]["message"]


@pytest.mark.parametrize("body", [{}, {"yaml": 1}, {"yaml": "x" * (MAX_YAML + 1)}, {"yaml": "a", "more": 1}, {"yaml": None}])
def test_a_wrong_request_is_refused(body: dict[str, Any]) -> None:
    reply = client(pipeline()).post("/v1/pipelines/draw", json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_value")


def test_reading_needs_ask_and_drawing_needs_admin(tmp_path: Path, corpus: Corpus) -> None:
    keys = KeyFile(tmp_path / "keys.json")
    secrets = {scope: keys.add(scope, [scope]) for scope in ("ask", "write", "admin")}
    http = client(pipeline(), doors=Doors(keys=keys))
    for scope, reads, draws in (("ask", 200, 403), ("write", 403, 403), ("admin", 403, 200)):
        headers = {"authorization": f"Bearer {secrets[scope]}"}
        assert http.get("/v1/pipelines", headers=headers).status_code == reads
        assert draw(http, YAML % corpus.path, headers=headers).status_code == draws
    assert (http.get("/v1/pipelines").status_code, draw(http, "").status_code) == (401, 401)


def test_where_things_are_is_shown_to_admins_only(corpus: Corpus, tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    asker, admin = file.add("asker", ["ask"]), file.add("admin", ["ask", "admin"])
    http = client(Pipeline().add("search", BM25(corpus)), doors=Doors(keys=file))
    cards = [http.get("/v1/pipelines", headers={"Authorization": f"Bearer {secret}"}).json()["data"][0] for secret in (asker, admin)]
    assert (cards[0]["yaml"], "admin" in cards[0]["note"]) == (None, True)
    assert str(corpus.folder) not in str(cards[0])
    assert str(corpus.folder) in cards[1]["yaml"]
