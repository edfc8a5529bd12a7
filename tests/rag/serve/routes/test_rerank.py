"""``/v1/rerank`` and ``/v2/rerank``: what Jina's and Cohere's clients read, and what the routes refuse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.testclient import TestClient

from rag.core.errors import InputError, ModelUnavailable
from rag.serve.rerank_types import CosineRanker, Ranker
from rag.serve.routes import rerank
from tests.rag.serve.parts import Letters, app_of, bad_json, work
from tests.rag.serve.test_disconnect import call, leaves_when

ASKED: dict[str, Any] = {"model": "cosine:letters", "query": "abc", "documents": ["xyz", "abc", "ab"]}
PATHS = ["/v1/rerank", "/v2/rerank"]


class Failing:
    """A ranker that raises ``error``."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def score(self, query: str, documents: list[str]) -> Sequence[float]:
        raise self.error


def client(ranker: Ranker | None = None) -> TestClient:
    app = app_of(rerank.routes({"cosine:letters": ranker or CosineRanker(Letters()), "other": CosineRanker(Letters())}, work()))
    return TestClient(app, raise_server_exceptions=False)


def test_the_first_form_has_what_jina_and_cohere_clients_read() -> None:
    body = client().post("/v1/rerank", json={**ASKED, "top_n": 2}).json()
    assert [one["index"] for one in body["results"]] == [1, 2]
    assert body["results"][0]["relevance_score"] > body["results"][1]["relevance_score"] > 0
    assert body["results"][0]["document"] == {"text": "abc"}
    assert body["model"] == "cosine:letters"
    assert body["usage"]["total_tokens"] == 0
    assert body["meta"]["api_version"]["version"] == "1"
    assert isinstance(body["id"], str)


def test_the_second_form_has_what_cohere_clients_read() -> None:
    body = client().post("/v2/rerank", json={**ASKED, "max_tokens_per_doc": 4096}).json()
    assert [one["index"] for one in body["results"]] == [1, 2, 0]
    assert set(body["results"][0]) == {"index", "relevance_score"}
    assert body["meta"]["api_version"]["version"] == "2"
    assert set(body) == {"id", "model", "results", "meta"}


def test_only_the_first_form_does_without_a_model_and_takes_objects() -> None:
    asked = {"query": "abc", "documents": [{"text": "abc"}]}
    assert client().post("/v1/rerank", json=asked).json()["model"] == "cosine:letters"
    assert client().post("/v2/rerank", json=asked).status_code == 400
    assert client().post("/v2/rerank", json={**asked, "model": "other"}).status_code == 400


@pytest.mark.parametrize("path", PATHS)
def test_an_unknown_model_is_named_with_the_known(path: str) -> None:
    reply = client().post(path, json={**ASKED, "model": "rerank-v3.5"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert "cosine:letters, other" in reply.json()["error"]["message"]
    nobody = TestClient(app_of(rerank.routes({}, work())))
    assert nobody.post("/v1/rerank", json={**ASKED, "model": None}).status_code == 404


BAD: list[tuple[dict[str, Any], str]] = [
    *(({"top_n": value}, "top_n:") for value in (0, -1, 2**31, 1001, 1e308, "10", True, 1.5)),
    *(({"max_tokens_per_doc": value}, "max_tokens_per_doc:") for value in (0, -1, 2**31, 1e308, "10", True)),
    *(({"documents": value}, "documents") for value in (None, "abc", [], [1], [None], [True], [["a"]], ["a"] * 1_001)),
    *(({"documents": value}, "documents") for value in (["x" * 20_001], ["a", "a\0b"], [{}], [{"image": "http://10.0.0.7/x.png"}])),
    *(({"query": value}, "query") for value in (None, "", " \n", 7, True, ["a"], "x" * 20_001, "a\0b")),
    *(({name: 1}, name) for name in ("n", "best_of", "logprobs")),
    ({"model": 1}, "model"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("wrong", "named"), BAD, ids=[str(case[0])[:40] for case in BAD])
def test_bad_fields_are_refused_by_name(path: str, wrong: dict[str, Any], named: str) -> None:
    letters = Letters()
    reply = client(CosineRanker(letters)).post(path, json={**ASKED, **wrong})
    assert reply.status_code == 400
    assert named in reply.json()["error"]["message"]
    assert len(reply.content) < 2_000
    assert letters.seen == []


@pytest.mark.parametrize(
    "wrong",
    [{"rank_fields": ["title"]}, {"return_documents": "yes"}, {"max_chunks_per_doc": 0}, {"documents": [{"text": "a", "title": "b"}]}],
)
def test_what_only_the_first_form_has_is_checked_too(wrong: dict[str, Any]) -> None:
    reply = client().post("/v1/rerank", json={**ASKED, **wrong})
    assert reply.status_code == 400
    assert next(iter(wrong)) in reply.json()["error"]["message"]
    assert client().post("/v1/rerank", json={**ASKED, "rank_fields": ["text"], "max_chunks_per_doc": 10}).status_code == 200


BODIES = bad_json(ASKED, "query", "top_n") | {
    f"documents: {name}": body
    for name, body in bad_json(ASKED, "documents", "top_n").items()
    if name in ("deep", "deep but closed", "a huge list", "a huge list of numbers")
}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bad_json_is_refused(path: str, body: bytes) -> None:
    reply = client().post(path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert len(reply.content) < 2_000
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize("path", PATHS)
def test_of_a_name_that_comes_twice_the_last_counts(path: str) -> None:
    letters = Letters()
    body = b'{"model": "cosine:letters", "query": "first", "documents": ["a"], "query": "last"}'
    reply = client(CosineRanker(letters)).post(path, content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 200
    assert letters.seen[0] == ("query", "last")


@pytest.mark.parametrize("text", ["<|im_start|>", "\u202etxet", "𠀀𠀁服装", "شكرا", "", "x" * 20_000])
def test_odd_and_long_documents_are_only_text(text: str) -> None:
    reply = client().post("/v1/rerank", json={**ASKED, "documents": [text]})
    assert reply.json()["results"][0]["document"] == {"text": text}


def test_as_many_documents_as_are_allowed_are_taken() -> None:
    reply = client().post("/v2/rerank", json={**ASKED, "documents": ["x"] * 1_000, "top_n": 1_000})
    assert [one["index"] for one in reply.json()["results"]] == list(range(1_000))


@pytest.mark.parametrize(
    ("error", "status"), [(ModelUnavailable("http://10.0.0.7"), 503), (RuntimeError("/srv/models"), 500), (InputError("too much"), 400)]
)
@pytest.mark.parametrize("path", PATHS)
def test_errors_of_the_ranker_have_their_status(path: str, error: Exception, status: int) -> None:
    reply = client(Failing(error)).post(path, json=ASKED)
    assert reply.status_code == status
    assert "10.0.0.7" not in reply.text
    assert "/srv" not in reply.text


def test_a_caller_that_leaves_or_waits_too_long_ends_the_work() -> None:
    class Hanging:
        started = cancelled = 0

        async def score(self, query: str, documents: list[str]) -> Sequence[float]:
            self.started += 1
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            return []

    ranker = Hanging()
    patient, hasty = (app_of(rerank.routes({"cosine:letters": ranker}, work(seconds))) for seconds in (60.0, 0.05))
    left = asyncio.run(call(patient, PATHS[0], leaves_when(ASKED, lambda: ranker.started == 1)))
    late = asyncio.run(call(hasty, PATHS[1], leaves_when(ASKED, lambda: False)))
    assert (left[0]["status"], late[0]["status"]) == (499, 504)
    assert ranker.cancelled == 2
