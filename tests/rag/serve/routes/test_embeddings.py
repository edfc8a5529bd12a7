"""``/v1/embeddings``: OpenAI's own client against a real server, and what the route refuses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from starlette.testclient import TestClient

from rag.core.errors import ModelUnavailable
from rag.serve.routes import embeddings
from tests.rag.serve.parts import Gathering, Letters, app_of, bad_json, listening, work
from tests.rag.serve.test_disconnect import call, leaves_when

ASKED = {"model": "letters", "input": "abc"}


def client(encoder: Any = None) -> TestClient:
    return TestClient(app_of(embeddings.routes({"letters": encoder or Letters()}, work())), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def official() -> Iterator[openai.OpenAI]:
    gathering = Gathering()
    gathering.gate.set()
    with listening(app_of(embeddings.routes({"letters": Letters(), "gathering": gathering}, work()))) as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("model", ["letters", "gathering"])
@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}], ids=["base64, its default", "float"])
def test_the_official_client_gets_the_encoders_vectors(official: openai.OpenAI, model: str, form: dict[str, Any]) -> None:
    answer = official.embeddings.create(model=model, input=["abc", "服装 x"], **form)
    assert [one.index for one in answer.data] == [0, 1]
    assert np.array_equal(np.float32([one.embedding for one in answer.data]), Letters().encode(["abc", "服装 x"]))
    assert answer.model == model
    assert answer.usage.total_tokens == 0


def test_the_official_client_gets_what_it_asked_for_as_base64(official: openai.OpenAI) -> None:
    raw = official.embeddings.with_raw_response.create(model="letters", input="abc", encoding_format="base64")
    assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str)


def test_the_official_client_reaches_our_own_field_and_understands_refusals(official: openai.OpenAI) -> None:
    query = official.embeddings.create(model="letters", input="abc", extra_body={"input_type": "query"})
    assert np.array_equal(np.float32(query.data[0].embedding), Letters().encode(["abc"], "query")[0])
    with pytest.raises(openai.NotFoundError, match="letters, gathering"):
        official.embeddings.create(model="text-embedding-3-small", input="abc")
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        official.embeddings.create(model="letters", input="abc", dimensions=8)


BAD: list[tuple[dict[str, Any], str]] = [
    *(
        ({"input": value}, "input")
        for value in (None, "", " \n", 7, True, {}, [], [""], ["a", " "], ["a", None], ["a", 1], "a\0b", ["a\0b"])
    ),
    *(({"input": value}, "input") for value in ("x" * 20_001, ["x" * 20_001], ["x"] * 257)),
    *(({"input": value}, "token ids") for value in ([1, 2, 3], [[1, 2], [3]])),
    *(({"dimensions": value}, "dimensions") for value in (0, -1, 2**31, 1e308, "26", True, 25, 26.5)),
    *(({"encoding_format": value}, "encoding_format") for value in ("int8", "", 1, True, ["float"])),
    *(({"input_type": value}, "input_type") for value in ("document", "", 1, True)),
    *(({name: 1}, name) for name in ("n", "best_of", "logprobs")),
    ({"model": None}, "model"),
    ({"model": 1}, "model"),
    ({"user": 1}, "user"),
]


@pytest.mark.parametrize(("wrong", "named"), BAD, ids=[str(case[0])[:40] for case in BAD])
def test_bad_fields_are_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    encoder = Letters()
    reply = client(encoder).post("/v1/embeddings", json={**ASKED, **wrong})
    assert reply.status_code == 400
    assert named in reply.json()["error"]["message"]
    assert len(reply.content) < 2_000
    assert encoder.seen == []


BODIES = bad_json(ASKED, "input", "dimensions")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bad_json_is_refused(body: bytes) -> None:
    reply = client().post("/v1/embeddings", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert len(reply.content) < 2_000
    assert reply.json()["error"]["message"]


def test_of_a_name_that_comes_twice_the_last_counts() -> None:
    encoder = Letters()
    body = b'{"model": "letters", "input": "first", "input": "last"}'
    assert client(encoder).post("/v1/embeddings", content=body, headers={"content-type": "application/json"}).status_code == 200
    assert encoder.seen == [("passage", "last")]


@pytest.mark.parametrize("text", ["<|im_start|>", "\u202etxet", "𠀀𠀁服装", "شكرا", "x" * 20_000])
def test_odd_and_long_text_is_only_text(text: str) -> None:
    assert client().post("/v1/embeddings", json={**ASKED, "input": text}).status_code == 200


def test_as_many_texts_as_are_allowed_are_taken() -> None:
    assert len(client().post("/v1/embeddings", json={**ASKED, "input": ["x"] * 256}).json()["data"]) == 256


def test_an_error_of_the_encoder_shows_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Letters):
        def encode(self, texts: list[str], kind: Any = "passage") -> np.ndarray:
            raise RuntimeError("/srv/models is gone")

    reply = client(Broken()).post("/v1/embeddings", json=ASKED)
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "/srv" not in reply.text
    assert "/srv/models is gone" in caplog.text

    class Away(Letters):
        def encode(self, texts: list[str], kind: Any = "passage") -> np.ndarray:
            raise ModelUnavailable("http://10.0.0.7")

    assert client(Away()).post("/v1/embeddings", json=ASKED).status_code == 503


def test_a_caller_that_leaves_is_not_worked_for_and_others_are() -> None:
    encoder = Gathering()
    app = app_of(embeddings.routes({"letters": encoder}, work()))

    async def scenario() -> tuple[Any, Any]:
        first = asyncio.create_task(call(app, "/v1/embeddings", stays("first")))
        while not encoder.begun.is_set():
            await asyncio.sleep(0.005)
        left = await call(app, "/v1/embeddings", leaves_when({**ASKED, "input": "leaves"}, lambda: True))
        encoder.gate.set()
        return left, await first

    left, first = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert left[0]["status"] == 499
    assert first[0]["status"] == 200
    assert [text for _, text in encoder.letters.seen] == ["first"]


def test_more_callers_than_it_takes_are_sent_away_at_once() -> None:
    encoder = Gathering()
    queue = work(running=1, waiting=1)
    app = app_of(embeddings.routes({"letters": encoder}, queue))

    async def scenario() -> list[Any]:
        others = [asyncio.create_task(call(app, "/v1/embeddings", stays(text))) for text in ("first", "second")]
        while not (encoder.begun.is_set() and queue.admission.waiting):
            await asyncio.sleep(0.005)
        refused = await call(app, "/v1/embeddings", stays("third"))
        encoder.gate.set()
        return [refused, *[await other for other in others]]

    refused, *others = asyncio.run(asyncio.wait_for(scenario(), 20))
    assert refused[0]["status"] == 429
    assert b"retry-after" in dict(refused[0]["headers"])
    assert json.loads(refused[1]["body"])["error"]["message"].startswith("1 requests are being answered and 1 wait")
    assert [other[0]["status"] for other in others] == [200, 200]


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    encoder = Gathering()
    app = app_of(embeddings.routes({"letters": encoder}, work(0.05)))
    sent = asyncio.run(call(app, "/v1/embeddings", stays("abc")))
    encoder.gate.set()
    assert sent[0]["status"] == 504
    assert json.loads(sent[1]["body"])["error"]["code"] == "timeout"


def stays(text: str) -> Any:
    return leaves_when({**ASKED, "input": text}, lambda: False)
