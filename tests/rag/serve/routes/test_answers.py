"""A question in an address, as an EventSource asks it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from rag.core.errors import ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.core.types import Message
from rag.serve.admission import Admission
from rag.serve.app import create_app
from rag.serve.asking import Asking
from rag.serve.breaker import Breaker
from rag.serve.contract import openapi_of
from rag.serve.health import Health
from rag.serve.observe import logs
from rag.serve.routes import answers
from rag.serve.service import Service
from rag.serve.settings import Doors, Limits
from tests.rag.serve.parts import PASSAGE, TEXT, OneShelf, Scripted, app_of, listening, pipeline, service, work

httpx2 = pytest.importorskip("httpx2")  # its EventSource parses as the HTML Standard says

ASKED = {"model": "graft", "question": "How long may a suit be worn outside? 服装"}


@pytest.fixture(scope="module")
def model() -> Scripted:
    return Scripted()


@pytest.fixture(scope="module")
def address(model: Scripted) -> Iterator[str]:
    with listening(server(pipeline(model))) as url:
        yield f"{url}/v1/answers"


def get(query: str, app: Any = None, **headers: str) -> Any:
    with TestClient(app or server()) as http:
        return http.get(f"/v1/answers?{query}", headers=headers)


def server(pipe: Pipeline | None = None, *, seconds: float = 60.0, doors: Doors = Doors()) -> FastAPI:
    """The route behind all doors."""
    served = {"graft": pipe or pipeline()}
    app = create_app(served, doors=doors, limits=Limits(seconds=seconds))
    asking = Asking(Admission(), Breaker, seconds, 5.0)
    app.include_router(answers.routes(Service(served, None, Health(served), asking, work())))
    return app


def last_turn(model: Scripted) -> str:
    """What the model was told last."""
    message = model.prompts[-1][-1]
    assert isinstance(message, Message)
    return message.content


def test_an_event_source_hears_the_whole_answer(address: str, model: Scripted) -> None:
    with httpx2.Client() as http, http.sse(address, params=ASKED) as source:
        events = list(source)
    assert [event.id for event in events] == [str(number) for number in range(1, len(events) + 1)]
    assert {event.event for event in events} == {"message"}
    *chunks, done = [event.data for event in events]
    assert done == "[DONE]"
    told = [json.loads(chunk) for chunk in chunks]
    assert {chunk["object"] for chunk in told} == {"chat.completion.chunk"}
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in told) == TEXT
    assert {chunk["graft"]["event"]["type"] for chunk in told if "event" in chunk.get("graft", {})} >= {"node_started", "retrieved"}
    assert told[-1]["choices"][0]["finish_reason"] == "stop"
    assert told[-1]["graft"]["sources"][0]["id"] == PASSAGE.id
    assert last_turn(model).endswith(ASKED["question"])


def test_its_events_are_those_of_a_streamed_chat(address: str) -> None:
    def shape(chunk: dict[str, Any]) -> Any:
        event = chunk.get("graft", {}).get("event", {})
        return chunk["choices"], event.get("type"), event.get("node"), "sources" in chunk.get("graft", {})

    asked = {"model": "graft", "messages": [{"role": "user", "content": ASKED["question"]}], "stream": True, "graft": {"events": True}}
    with httpx2.Client() as http:
        with http.sse(address, params=ASKED) as source:
            ours = [event.data for event in source]
        lines = http.post(address.replace("answers", "chat/completions"), json=asked).text.split("\n")
    chats = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    assert ours.pop() == chats.pop() == "[DONE]"
    assert [shape(json.loads(one)) for one in ours] == [shape(json.loads(one)) for one in chats]


@pytest.mark.parametrize("last", ["1", "12", "", "x" * 100])
def test_who_connects_again_is_told_to_stop_and_nothing_is_asked(address: str, model: Scripted, last: str) -> None:
    before = len(model.prompts)
    reply = httpx2.get(address, params=ASKED, headers={"Last-Event-ID": last})
    assert (reply.status_code, reply.content) == (204, b"")
    assert len(model.prompts) == before


BAD = {
    "nothing": "",
    "no question": "model=graft",
    "no model": "question=x",
    "blank": "model=graft&question=%20%0A",
    "twice": "model=graft&question=x&question=x",
    "another model first": "model=no&model=graft&question=x",
    "unknown": "model=graft&question=x&stream=true",
    "our option": "model=graft&question=x&graft=%7B%7D",
    "a list": "model=graft&question%5B%5D=x",
    "no value": "model=graft&question",
    "NUL": "model=graft&question=a%00b",
    "not UTF-8": "model=graft&question=%FF",
    "a lone surrogate": "model=graft&question=%ED%A0%80",
    "overlong": "model=graft&question=%C0%AFx",
    "too long": f"model=graft&question={'x' * 2_001}",
    "a long model": f"model={'g' * 201}&question=x",
    "many": "&".join(f"x{number}=1" for number in range(5_000)),
    "many of one": "&".join(["question=x"] * 21),
    "other separators": "model=graft;question=x",
}


@pytest.mark.parametrize("query", BAD.values(), ids=BAD)
def test_a_wrong_query_is_refused_in_the_documented_shape(query: str) -> None:
    model = Scripted()
    reply = get(query, server(pipeline(model)))
    assert (reply.status_code, reply.headers["content-type"]) == (400, "application/json")
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
    assert model.prompts == []


def test_the_longest_question_passes_a_real_connection(address: str, model: Scripted) -> None:
    question = "服" * 2_000
    with httpx2.Client() as http, http.sse(address, params={**ASKED, "question": question}) as source:
        assert [event.data for event in source][-1] == "[DONE]"
    assert last_turn(model).endswith(question)


def test_odd_text_is_only_text() -> None:
    for text in ("a&b=c#d?e+f%g", "\r\ndata: x\r\n\r\nid: 7", "{{7*7}}", "' OR 1=1 --", "../../etc/passwd", "𠀀"):
        model = Scripted()
        reply = get(f"model=graft&question={quote(text)}", server(pipeline(model)))
        assert reply.status_code == 200
        assert last_turn(model).endswith(text.strip())


def test_what_the_pipeline_writes_breaks_no_event() -> None:
    text = "one\r\ndata: two\n\nid: 7\n\nevent: x\r[DONE] \u2028 three"
    reply = get(urlencode(ASKED), server(pipeline(Scripted(text))))
    lines = reply.text.split("\n")
    assert not [line for line in lines if line and not line.startswith(("id: ", "data: "))]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == text


def test_what_goes_wrong_before_the_stream_has_its_status_and_later_it_is_an_event() -> None:
    reply = get("model=gpt-9&question=x")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")

    def down(question: str) -> str:
        raise ModelUnavailable("http://10.0.0.7 is down")

    with TestClient(server(Pipeline().add("down", down))) as http:
        for _ in range(5):
            reply = http.get("/v1/answers", params=ASKED)
            *_, failed, done = [line.removeprefix("data: ") for line in reply.text.split("\n") if line.startswith("data: ")]
            assert (reply.status_code, json.loads(failed)["error"]["code"], done) == (200, "model_unavailable", "[DONE]")
            assert "10.0.0.7" not in reply.text
        reply = http.get("/v1/answers", params=ASKED)  # left alone for a while
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "model_unavailable")
        assert "retry-after" in reply.headers


def test_an_answer_that_takes_too_long_ends_with_an_error_event() -> None:
    model = Scripted(hangs_at=2)
    reply = get(urlencode(ASKED), server(pipeline(model), seconds=0.3))
    *_, failed, done = [line.removeprefix("data: ") for line in reply.text.split("\n") if line.startswith("data: ")]
    assert (json.loads(failed)["error"]["code"], done) == ("timeout", "[DONE]")
    assert model.cancelled == 1


def test_it_needs_the_scope_ask_and_a_key_in_a_header() -> None:
    app = server(doors=Doors(secret="s3cret-key"))
    assert get(urlencode(ASKED), app).status_code == 401
    assert get(urlencode({**ASKED, "api_key": "s3cret-key"}), app).status_code == 401
    assert get(urlencode(ASKED), app, Authorization="Bearer s3cret-key").status_code == 200
    assert get("", app, **{"Last-Event-ID": "1"}).status_code == 401


FOREIGN = [
    {"Origin": "https://evil.example"},  # an EventSource
    {"Origin": "null"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "script"},  # another port of this machine
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    {"Sec-Fetch-Site": "none, cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN)
def test_a_page_of_a_foreign_origin_cannot_make_it_work(headers: dict[str, str]) -> None:
    shelf, model = OneShelf(), Scripted()
    reply = TestClient(server(pipeline(model, shelf))).get("/v1/answers", params=ASKED, headers=headers)
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in reply.headers
    assert (model.prompts, shelf.filters) == ([], [])


def test_our_own_page_and_an_allowed_one_may_ask() -> None:
    app = server(doors=Doors(origins=("https://app.example.org",)))
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}, {"Origin": "http://testserver"}):
        assert get(urlencode(ASKED), app, **headers).status_code == 200
    reply = get(urlencode(ASKED), app, Origin="https://app.example.org", **{"Sec-Fetch-Site": "cross-site"})
    assert (reply.status_code, reply.headers["access-control-allow-origin"]) == (200, "https://app.example.org")


def test_the_question_is_in_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    logs.configure_logging("json", "debug", sys.stderr)
    try:
        asked = {"model": "graft", "question": "where is the red key hidden"}
        assert get(urlencode(asked), server(pipeline(Scripted("behind the panel")))).status_code == 200

        def failing(question: str) -> str:
            raise ValueError(f"cannot read {question!r}")

        get(urlencode(asked), server(Pipeline().add("failing", failing)))
        get(f"{urlencode(asked)}&secret-name=1")
    finally:
        import logging

        logging.getLogger().handlers = [one for one in logging.getLogger().handlers if not isinstance(one, logs._Handler)]
    said = capsys.readouterr().err
    assert said.count('"route": "/v1/answers"') == 3
    for private in ("red key", "red+key", "red%20key", "panel", "secret-name"):
        assert private not in said


def test_the_document_describes_it() -> None:
    router = answers.routes(service({"graft": pipeline()}))
    operation = openapi_of(app_of(router), in_front=())["paths"]["/v1/answers"]["get"]
    assert {(one["name"], one["in"], one.get("required", False)) for one in operation["parameters"]} == {
        ("model", "query", True),
        ("question", "query", True),
        ("Last-Event-ID", "header", False),
    }
    assert set(operation["responses"]) == {"200", "204", "400", "404", "429", "500", "503", "504"}
    assert "content" not in operation["responses"]["204"]
    assert set(operation["responses"]["200"]["content"]) == {"text/event-stream"}


def test_the_server_offers_it() -> None:
    with TestClient(create_app(pipeline())) as http:
        assert http.get("/v1/answers", params=ASKED).status_code == 200
        assert "/v1/answers" in http.get("/openapi.json").json()["paths"]
