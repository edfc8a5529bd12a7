"""``/v1/completions``: OpenAI's own client against a real server, and what the route refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from rag.core.errors import ModelUnavailable
from rag.core.types import Sampling
from rag.serve.routes import completions
from tests.rag.serve.parts import PASSAGE, TEXT, OneShelf, Scripted, app_of, bad_json, listening, pipeline, service

ASKED = {"model": "graft", "prompt": "How long may a suit be worn outside?"}


def client(model: Scripted | None = None, shelf: OneShelf | None = None) -> TestClient:
    return TestClient(app_of(completions.routes(service({"graft": pipeline(model, shelf)}))), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def official() -> Iterator[openai.OpenAI]:
    with listening(app_of(completions.routes(service({"graft": pipeline()})))) as address:
        yield openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


def test_the_official_client_gets_an_answer(official: openai.OpenAI) -> None:
    answer = official.completions.create(**ASKED, temperature=0.5, max_tokens=16, user="ann")
    assert answer.object == "text_completion"
    assert answer.choices[0].text == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.total_tokens == 52
    assert answer.choices[0].graft["sources"][0]["document"] == PASSAGE.document
    assert "not followed: user (" in str(answer.choices[0].graft["notes"])


def test_the_official_client_streams(official: openai.OpenAI) -> None:
    chunks = list(official.completions.create(**ASKED, stream=True, stream_options={"include_usage": True}))
    pieces = [chunk.choices[0].text for chunk in chunks if chunk.choices]
    assert "".join(pieces) == TEXT
    assert len([piece for piece in pieces if piece]) > 3
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert chunks[-1].usage.total_tokens == 52
    assert chunks[-2].graft["sources"][0]["id"] == PASSAGE.id


def test_the_official_client_understands_a_refusal(official: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="best_of"):
        official.completions.create(**ASKED, best_of=3)
    with pytest.raises(openai.NotFoundError, match="graft"):
        official.completions.create(model="davinci-002", prompt="x")


@pytest.mark.parametrize("stream", [False, True])
def test_sampling_reaches_the_model_and_what_was_cut_off_says_so(stream: bool) -> None:
    model = Scripted()
    body = client(model).post("/v1/completions", json={**ASKED, "max_tokens": 3, "seed": -1, "top_p": 0.5, "stream": stream}).text
    assert model.samplings == [Sampling(max_tokens=3, top_p=0.5, seed=2**63 - 1)]
    assert '"finish_reason":"length"' in body
    assert "not followed" not in body
    assert "cut off at max_tokens=3" in body


def test_a_list_of_one_prompt_and_our_own_options_are_taken() -> None:
    shelf = OneShelf()
    asked = {"model": "graft", "prompt": ["How long?"], "graft": {"filter": {"lang": "zh"}}, "stream": None}
    assert client(shelf=shelf).post("/v1/completions", json=asked).status_code == 200
    assert shelf.filters == [{"lang": "zh"}]


@pytest.mark.parametrize("harmless", [{"n": 1}, {"best_of": 1}, {"echo": False}, {"suffix": ""}, {"logit_bias": {}}, {"logprobs": None}])
def test_what_asks_for_what_is_done_anyway_is_taken(harmless: dict[str, Any]) -> None:
    reply = client().post("/v1/completions", json={**ASKED, **harmless})
    assert reply.status_code == 200
    assert "not followed" not in reply.text


NUMBERS = [0, -1, 2**31, 1e308, "10", True, 1.5]
BAD: list[tuple[dict[str, Any], str]] = [
    *(({name: value}, f"{name}:") for name in ("n", "best_of", "logprobs", "max_tokens") for value in NUMBERS),
    *(({name: 2}, f"{name}:") for name in ("n", "best_of", "logprobs")),
    *(({name: value}, f"{name}:") for name in ("temperature", "frequency_penalty", "presence_penalty") for value in (-3, 1e308, "1", True)),
    *(({"top_p": value}, "top_p:") for value in (0, -1, 1.5, "1", True)),
    *(({"seed": value}, "seed:") for value in (2**63, 0.5, "1", True)),
    *(({"prompt": value}, "prompt") for value in (None, "", " \n", 7, True, [], ["a", "b"], [""], [None], "x" * 20_001, "a\0b")),
    *(({"prompt": value}, "token ids") for value in ([1, 2, 3], [[1, 2], [3]])),
    ({"echo": True}, "echo:"),
    ({"suffix": " and so on"}, "suffix:"),
    ({"stop": ["x"]}, "stop:"),
    ({"logit_bias": {"50256": -100}}, "logit_bias:"),
    ({"stream": "true"}, "stream:"),
    ({"messages": []}, "messages:"),
    ({"model": None}, "model:"),
    ({"user": "x" * 1_001}, "user:"),
    ({"graft": {"filter": "lang"}}, "filter"),
]


@pytest.mark.parametrize(("wrong", "named"), BAD, ids=[str(case[0])[:40] for case in BAD])
def test_bad_fields_are_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    model = Scripted()
    reply = client(model).post("/v1/completions", json={**ASKED, **wrong})
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"
    assert named in reply.json()["error"]["message"]
    assert len(reply.content) < 2_000
    assert model.prompts == []


BODIES = bad_json(ASKED, "prompt", "temperature")


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bad_json_is_refused(body: bytes) -> None:
    reply = client().post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert len(reply.content) < 2_000
    assert reply.json()["error"]["message"]


def test_of_a_name_that_comes_twice_the_last_counts() -> None:
    body = json.dumps(ASKED)[:-1].encode() + b', "prompt": "and now?"}'
    model = Scripted()
    assert client(model).post("/v1/completions", content=body, headers={"content-type": "application/json"}).status_code == 200
    assert "and now?" in str(model.prompts[0])
    assert "How long" not in str(model.prompts[0])


@pytest.mark.parametrize("text", ["<|im_start|>system", "\u202etxet", "𠀀𠀁服装", "شكرا", "{{7*7}} {question}"])
def test_odd_text_is_only_text(text: str) -> None:
    assert client().post("/v1/completions", json={**ASKED, "prompt": text}).status_code == 200


@pytest.mark.parametrize("streaming", [False, True])
def test_a_model_that_is_down_is_503_without_its_address(streaming: bool) -> None:
    shelf = OneShelf(ModelUnavailable("http://10.0.0.7 is down"))
    reply = client(shelf=shelf).post("/v1/completions", json={**ASKED, "stream": streaming})
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
    assert "10.0.0.7" not in reply.text
