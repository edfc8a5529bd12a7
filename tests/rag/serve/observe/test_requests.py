from __future__ import annotations

import asyncio
import json
import logging
import traceback
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from starlette.testclient import TestClient

from rag.core.pipeline import Pipeline
from rag.core.trace import TextDelta, count, emit
from rag.serve.observe.logs import configure_logging
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.requests import Observed, ResponseBroken
from tests.rag.serve.observe.parts import KEY, call, observed, value
from tests.rag.serve.parts import TEXT, Scripted, pipeline

QUESTION = "Where is the red key of the east airlock?"


@pytest.fixture
def lines() -> Iterator[Any]:
    """What was logged, as a function that reads it."""
    stream = StringIO()
    root, graft, silenced = logging.getLogger(), logging.getLogger("graft"), logging.getLogger("uvicorn.access")
    before = list(root.handlers), graft.level, list(silenced.handlers), silenced.propagate
    configure_logging("json", "debug", stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers, (silenced.handlers, silenced.propagate) = before[0], before[2:]
    graft.setLevel(before[1])


def access(lines: Any) -> list[dict[str, Any]]:
    return [line for line in lines() if line["logger"] == "graft.access"]


def test_a_request_is_one_line_and_answers_with_its_id(lines: Any) -> None:
    app, metrics = observed()
    reply = TestClient(app).post("/ask/ann", json={"question": QUESTION}, headers={"X-Request-Id": "abc-1.2_3"})
    assert reply.headers["x-request-id"] == "abc-1.2_3"
    (line,) = access(lines)
    assert (line["request_id"], line["method"], line["route"], line["status"]) == ("abc-1.2_3", "POST", "/ask/{user}", 200)
    assert (line["outcome"], line["model"], line["caller"]) == ("whole", "graft", None)
    assert line["bytes"] == len(reply.content)
    assert 0 < line["seconds"] < 20
    assert value(metrics, "http_requests_total", route="/ask/{user}", method="POST", status="200") == 1


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\u00e9", "a/b", "1\t2"])
def test_an_id_that_could_do_harm_is_replaced(given: str, lines: Any) -> None:
    app, _ = observed()
    sent = call(app, headers=[(b"content-type", b"application/json"), (b"x-request-id", given.encode("latin-1"))])
    new = dict(sent[0]["headers"])[b"x-request-id"].decode()
    assert len(new) == 32
    assert new != given
    assert access(lines)[0]["request_id"] == new


def test_of_two_ids_neither_is_taken(lines: Any) -> None:
    sent = call(observed()[0], headers=[(b"x-request-id", b"one"), (b"x-request-id", b"two")])
    assert dict(sent[0]["headers"])[b"x-request-id"] not in (b"one", b"two")


def test_nothing_private_is_logged(lines: Any) -> None:
    """Neither the key nor the question nor what stands in the path, the query or a hostile header."""
    model = Scripted("The secret answer is behind the panel [1].")
    app, _ = observed(pipeline(model), key=KEY)
    client = TestClient(app, raise_server_exceptions=False)
    hostile = {"X-Request-Id": "evil\\n{}", "User-Agent": "agent-secret", "X-Other": "other-secret"}
    for key in (KEY, "wrong-secret-key"):
        client.post(
            "/ask/ann-secret?token=query-secret", json={"question": QUESTION}, headers={"Authorization": f"Bearer {key}", **hostile}
        )
    client.get("/nowhere%0a{%22level%22:%22error%22}?token=query-secret", headers={"Authorization": f"Bearer {KEY}"})
    call(app, headers=[(b"authorization", f"Bearer {KEY}".encode()), (b"x-request-id", b'a\r\n{"level": "error"}')], path="/a\nb\u2028c")
    logged = lines()
    assert [line["status"] for line in access(lines)] == [200, 401, 404, 404]
    assert len(logged) == 4
    text = json.dumps(logged)
    for secret in (KEY, "secret", QUESTION, "red key", "panel", "nowhere", "evil", "token", "ann"):
        assert secret not in text


def test_an_error_nobody_caught_is_a_500_that_names_the_request(lines: Any) -> None:
    app, metrics = observed()
    reply = TestClient(app).get(f"/fails?wanted={KEY}", headers={"Authorization": f"Bearer {KEY}", "X-Request-Id": "r1"})
    assert reply.status_code == 500
    assert reply.json()["error"]["code"] == "internal_error"
    assert reply.headers["x-request-id"] == "r1"
    assert KEY not in reply.text
    failure, line = lines()
    assert failure["request_id"] == line["request_id"] == "r1"
    assert "RuntimeError: no luck with [private]" in failure["exception"]
    assert KEY not in json.dumps(lines())
    assert (line["status"], line["level"]) == (500, "warning")
    assert value(metrics, "http_requests_total", route="/fails", method="GET", status="500") == 1


def test_a_question_quoted_by_an_error_is_masked(lines: Any) -> None:
    async def failing(question: str) -> str:
        raise ValueError(f"cannot read {question!r}")

    app, metrics = observed(Pipeline().add("failing", failing))
    reply = TestClient(app).post("/ask/ann", json={"question": 'the "red"\nkey'})
    assert reply.status_code == 500
    text = json.dumps(lines())
    assert "cannot read" in text
    assert "red" not in text
    assert value(metrics, "run_failures_total", model_name="graft", kind="NodeError") == 1


@pytest.mark.parametrize("streaming", [b"", b"stream=1"])
def test_a_caller_that_leaves_is_logged_and_counted_once(streaming: bytes, lines: Any) -> None:
    model = Scripted(hangs_at=3)
    app, metrics = observed(pipeline(model))
    heard: list[bytes] = []

    async def watching(scope: Any, receive: Any, send: Any) -> None:
        async def noting(message: Any) -> None:
            heard.append(message.get("body", b""))
            await send(message)

        await app(scope, receive, noting)

    call(watching, leaves=lambda: b" suit" in heard if streaming else bool(model.prompts), query_string=streaming)
    (line,) = access(lines)
    assert (line["outcome"], line["status"]) == ("left", 499)
    assert line["bytes"] == (len("A suit may") if streaming else 0)
    assert value(metrics, "http_requests_total", route="/ask/{user}", method="POST", status="499") == 1
    assert value(metrics, "runs_total", model_name="graft", outcome="left") == 1
    assert value(metrics, "runs_total", model_name="graft", outcome="answered") == 0
    assert value(metrics, "http_requests_in_flight") == 0
    assert value(metrics, "num_requests_running") == 0


def test_a_request_that_the_server_cancels_is_logged_too(lines: Any) -> None:
    app, metrics = observed(pipeline(Scripted(hangs_at=3)))

    async def limited(scope: Any, receive: Any, send: Any) -> None:
        async with asyncio.timeout(0.1):
            await app(scope, receive, send)

    with pytest.raises(TimeoutError):
        call(limited)
    (line,) = access(lines)
    assert (line["outcome"], line["status"], line["bytes"]) == ("broken", 500, 0)
    assert value(metrics, "runs_total", model_name="graft", outcome="left") == 1
    assert value(metrics, "http_requests_in_flight") == 0


def test_what_a_caller_that_left_has_cost_is_counted(lines: Any) -> None:
    """The run gives no result, but its retrieval and the tokens of its first call are known."""
    model = Scripted(hangs_at=3)

    async def first(question: str) -> str:
        count(calls=1, prompt_tokens=7, generated_tokens=2)
        emit(TextDelta("early"))
        return question

    pipe = pipeline(model).add("first", first)
    app, metrics = observed(pipe)
    call(app, leaves=lambda: bool(model.prompts), query_string=b"stream=1")
    assert value(metrics, "prompt_tokens_total", model_name="graft") == 7
    assert value(metrics, "retrieval_seconds_count", model_name="graft") == 1
    assert value(metrics, "node_seconds_count", model_name="graft", node="answer") == 1


def test_an_answer_that_breaks_off_does_not_look_whole(lines: Any) -> None:
    async def breaking(question: str) -> str:
        emit(TextDelta("so far"))
        raise ValueError("the rest is lost")

    app, metrics = observed(Pipeline().add("breaking", breaking))
    with pytest.raises(ResponseBroken, match="broke off") as broken:
        TestClient(app).post("/ask/ann?stream=1", json={"question": QUESTION})
    (line,) = access(lines)
    assert (line["status"], line["outcome"]) == (500, "broken")
    assert line["bytes"] == len("so far")
    assert "the rest is lost" not in "".join(traceback.format_exception(broken.value))  # the server will log it, outside of the request
    assert value(metrics, "runs_total", model_name="graft", outcome="failed") == 1


def test_a_hostile_path_or_method_makes_no_label(lines: Any) -> None:
    app, metrics = observed(key=KEY)
    allowed = [(b"authorization", f"Bearer {KEY}".encode()), (b"content-type", b"application/json")]
    for number in range(20):
        call(app, path=f"/evil/{number}", headers=allowed)
        call(app, path=f"/ask/{number}", method=f"EVIL{number}", headers=allowed)
        call(app, path=f"/ask/{number}", headers=[])
    text = metrics.text().decode()
    assert "evil" not in text.lower()
    counted = [line for line in text.splitlines() if line.startswith("graft_http_requests_total")]
    assert len(counted) == 3
    assert value(metrics, "http_requests_total", route="other", method="POST", status="404") == 20
    assert value(metrics, "http_requests_total", route="/ask/{user}", method="other", status="405") == 20
    assert value(metrics, "http_requests_total", route="/ask/{user}", method="POST", status="401") == 20  # refused before it was routed
    assert "evil" not in json.dumps(lines()).lower()


def test_the_caller_is_who_the_key_says(lines: Any) -> None:
    app, _ = observed()

    class Known:
        name = "team\n-a" * 40

    call(app, state={"caller": Known()})
    call(app, state={"caller": "team-b"})
    first, second = access(lines)
    assert first["caller"] == ("team\n-a" * 40)[:64]
    assert second["caller"] == "team-b"


def test_other_protocols_pass() -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    async def nothing(*_: Any) -> Any:
        return None

    asyncio.run(Observed(inner, Metrics({}))({"type": "lifespan"}, nothing, nothing))
    assert seen == [{"type": "lifespan"}]


def test_the_answer_itself_is_untouched() -> None:
    app, _ = observed()
    assert TestClient(app).post("/ask/ann", json={"question": QUESTION}).json() == {"answer": TEXT}
    assert TestClient(app).post("/ask/ann?stream=1", json={"question": QUESTION}).text == TEXT
