from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from rag.core.errors import CorpusDamaged, CorpusLocked, GraftError, InputError, ModelUnavailable, PromptTooLong
from rag.core.pipeline import Pipeline
from rag.serve.app import create_app
from rag.serve.settings import Doors
from tests.rag.serve.parts import PASSAGE, TEXT, OneShelf, Scripted, pipeline

QUESTION = {"model": "graft", "messages": [{"role": "user", "content": "How long may a suit be worn outside?"}]}


def client(model: Scripted | None = None, shelf: OneShelf | None = None, **options: Any) -> TestClient:
    return TestClient(create_app(pipeline(model, shelf), **options), raise_server_exceptions=False)


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_answers_in_openai_shape_with_sources_and_usage() -> None:
    reply = client().post("/v1/chat/completions", json=QUESTION)
    body = reply.json()
    assert reply.status_code == 200
    assert (body["object"], body["model"]) == ("chat.completion", "graft")
    choice = body["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == TEXT
    assert body["usage"] == {"prompt_tokens": 40, "completion_tokens": 12, "total_tokens": 52}
    graft = choice["message"]["graft"]
    assert graft["sources"][0]["document"] == PASSAGE.document
    assert graft["sources"][0]["text"] == PASSAGE.text
    citation = graft["citations"][0]
    assert (citation["number"], citation["valid"]) == (1, True)
    assert TEXT[citation["start"] : citation["end"]] == "[1]"


def test_a_stream_joins_to_the_whole_answer() -> None:
    asked = {**QUESTION, "stream": True, "stream_options": {"include_usage": True}}
    reply = client().post("/v1/chat/completions", json=asked)
    assert reply.headers["content-type"].startswith("text/event-stream")
    chunks = events(reply.text)
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    pieces = [c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]]
    assert len([p for p in pieces if p]) > 3
    assert "".join(pieces) == TEXT
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-2]["graft"]["sources"][0]["id"] == PASSAGE.id
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == 52
    assert len({c["id"] for c in chunks}) == 1


def test_retrievals_and_tool_calls_are_events_of_the_stream() -> None:
    from rag.core.trace import TextDelta, ToolCalled, emit

    asked = {**QUESTION, "stream": True}
    told = [c["graft"]["event"] for c in events(client().post("/v1/chat/completions", json=asked).text) if "event" in c.get("graft", {})]
    assert told == [
        {
            "type": "retrieved",
            "query": QUESTION["messages"][0]["content"],
            "passages": [
                {"id": PASSAGE.id, "document": PASSAGE.document, "title": PASSAGE.title, "score": told[0]["passages"][0]["score"]}
            ],
        }
    ]

    async def calling(question: str) -> str:
        emit(TextDelta("It is "))
        emit(ToolCalled("calculator", "27 + 4 * 2", "35"))
        emit(ToolCalled("calculator", "1/0", error="division by zero"))
        return "It is 35"

    app = create_app({"echo": Pipeline().add("calling", calling)})
    chunks = events(TestClient(app).post("/v1/chat/completions", json={**asked, "model": "echo"}).text)
    assert [c["graft"]["event"] for c in chunks if "event" in c.get("graft", {})] == [
        {"type": "tool_called", "tool": "calculator", "input": "27 + 4 * 2", "output": "35", "error": ""},
        {"type": "tool_called", "tool": "calculator", "input": "1/0", "output": "", "error": "division by zero"},
    ]
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "It is 35"


def test_with_events_a_stream_begins_with_the_first_step_and_tells_an_error_as_an_event() -> None:
    asked = {**QUESTION, "stream": True, "graft": {"events": True}}
    chunks = events(client().post("/v1/chat/completions", json=asked).text)
    told = [chunk["graft"]["event"]["type"] for chunk in chunks if "event" in chunk.get("graft", {})]
    assert told[0] == "node_started"
    assert told.index("retrieved") < len(told) - 1
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == TEXT
    down = client(Scripted(error=ModelUnavailable("http://10.0.0.7 is down"))).post("/v1/chat/completions", json=asked)
    assert down.status_code == 200
    assert events(down.text)[-1]["error"]["code"] == "model_unavailable"
    assert "10.0.0.7" not in down.text


def test_what_is_added_after_the_model_wrote_is_streamed_too() -> None:
    model = Scripted("A suit may be worn outside for 90 minutes.")
    whole = client(model).post("/v1/chat/completions", json=QUESTION).json()["choices"][0]["message"]["content"]
    chunks = events(client(model).post("/v1/chat/completions", json={**QUESTION, "stream": True}).text)
    assert whole.endswith("[1]")
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == whole
    assert not any("usage" in c for c in chunks)


def test_text_of_a_pipeline_that_streams_nothing_or_revises_it() -> None:
    async def late(question: str) -> str:
        return f"echo {question}"

    app = create_app({"echo": Pipeline().add("late", late)})
    asked = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    chunks = events(TestClient(app).post("/v1/chat/completions", json=asked).text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "echo hi"
    assert chunks[-1]["graft"]["sources"] == []

    async def revising(question: str) -> str:
        from rag.core.trace import TextDelta, emit

        emit(TextDelta("first draft"))
        return "final"

    app = create_app({"echo": Pipeline().add("revising", revising)})
    chunks = events(TestClient(app).post("/v1/chat/completions", json=asked).text)
    assert chunks[-1]["graft"]["text"] == "final"


def test_the_last_user_message_is_the_question_and_the_rest_is_named() -> None:
    model = Scripted()
    messages = [
        {"role": "system", "content": "Talk like a pirate."},
        {"role": "user", "content": "What is a suit?"},
        {"role": "assistant", "content": "A garment."},
        {"role": "user", "content": [{"type": "text", "text": "How long outside?"}]},
    ]
    body = client(model).post("/v1/chat/completions", json={"model": "graft", "messages": messages, "user": "ann", "store": True}).json()
    notes = body["choices"][0]["message"]["graft"]["notes"]
    assert any("only the last user message was read, not the other 3" in note for note in notes)
    assert any("not followed: store, user" in note for note in notes)
    assert "How long outside?" in str(model.prompts[0])
    assert "pirate" not in str(model.prompts[0])


def test_models_and_retrieve_and_health() -> None:
    with client() as http:
        assert [m["id"] for m in http.get("/v1/models").json()["data"]] == ["graft"]
        hits = http.post("/v1/retrieve", json={"query": "suit", "k": 3}).json()["hits"]
        assert [(h["number"], h["id"], h["score"]) for h in hits] == [(1, PASSAGE.id, 2.5)]
        health = http.get("/healthz")
        assert health.status_code == 200
        assert health.json()["passages"] == 1
        assert health.json()["models"] == [{"type": "Scripted", "name": "scripted", "status": "ok"}]


def test_the_filter_reaches_the_retriever() -> None:
    shelf = OneShelf()
    http = client(shelf=shelf)
    assert http.post("/v1/retrieve", json={"query": "suit", "filter": {"lang": "en"}}).status_code == 200
    assert http.post("/v1/chat/completions", json={**QUESTION, "graft": {"filter": {"lang": "zh"}}}).status_code == 200
    assert shelf.filters == [{"lang": "en"}, {"lang": "zh"}]


def test_a_pipeline_without_a_retriever_says_so() -> None:
    def echo(question: str) -> str:
        return question

    reply = TestClient(create_app(Pipeline().add("echo", echo))).post("/v1/retrieve", json={"query": "suit"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "no_retriever")


BAD_CHATS: list[tuple[str, Any, str]] = [
    ("no messages", {"model": "graft"}, "messages"),
    ("empty messages", {"model": "graft", "messages": []}, "messages"),
    ("too many messages", {"model": "graft", "messages": [{"role": "user", "content": ""}] * 1001}, "messages"),
    ("no user", {"model": "graft", "messages": [{"role": "system", "content": "x"}]}, "user"),
    ("empty question", {"model": "graft", "messages": [{"role": "user", "content": "  "}]}, "empty"),
    ("null content", {"model": "graft", "messages": [{"role": "user", "content": None}]}, "empty"),
    ("long question", {"model": "graft", "messages": [{"role": "user", "content": "x" * 20_001}]}, "20,001"),
    ("NUL", {"model": "graft", "messages": [{"role": "user", "content": "a\0b"}]}, "NUL"),
    ("image", {"model": "graft", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]}, "type"),
    ("tool turn", {"model": "graft", "messages": [{"role": "tool", "content": "x"}]}, "role"),
    ("unknown field", {**QUESTION, "temprature": 1}, "temprature"),
    ("stream as text", {**QUESTION, "stream": "true"}, "stream"),
    ("stream as number", {**QUESTION, "stream": 1}, "stream"),
    ("two choices", {**QUESTION, "n": 2}, "n:"),
    ("no choice", {**QUESTION, "n": 0}, "n:"),
    ("n as bool", {**QUESTION, "n": True}, "n:"),
    ("n as text", {**QUESTION, "n": "1"}, "n:"),
    ("max_tokens 0", {**QUESTION, "max_tokens": 0}, "max_tokens"),
    ("max_tokens -1", {**QUESTION, "max_tokens": -1}, "max_tokens"),
    ("max_tokens 2^31", {**QUESTION, "max_tokens": 2**31}, "max_tokens"),
    ("max_tokens 1e308", {**QUESTION, "max_tokens": 1e308}, "max_tokens"),
    ("max_tokens text", {**QUESTION, "max_tokens": "10"}, "max_tokens"),
    ("temperature 3", {**QUESTION, "temperature": 3}, "temperature"),
    ("temperature bool", {**QUESTION, "temperature": True}, "temperature"),
    ("top_p 0", {**QUESTION, "top_p": 0}, "top_p"),
    ("penalty", {**QUESTION, "presence_penalty": -2.5}, "presence_penalty"),
    ("tools", {**QUESTION, "tools": [{"type": "function"}]}, "tools"),
    ("stop", {**QUESTION, "stop": ["x"]}, "stop"),
    ("logprobs", {**QUESTION, "logprobs": True}, "logprobs"),
    ("json mode", {**QUESTION, "response_format": {"type": "json_object"}}, "response_format"),
    ("filter as text", {**QUESTION, "graft": {"filter": "lang=en"}}, "filter"),
    ("a list", [], "object"),
]


@pytest.mark.parametrize(("body", "named"), [case[1:] for case in BAD_CHATS], ids=[case[0] for case in BAD_CHATS])
def test_bad_chat_requests_are_refused_by_name(body: Any, named: str) -> None:
    model = Scripted()
    reply = client(model).post("/v1/chat/completions", json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert named in error["message"]
    assert model.prompts == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"model": "graft", "messages": [{"role": "user", "content": "\xff"}]}',
        b'{"model": "graft", "messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"model": "graft", "temperature": NaN, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "graft", "temperature": Infinity, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "graft", "temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}',
        b'{"model": "graft", "messages": ' + b"[" * 100_000,
        b'{"model": "graft", "messages": [{"role": "user", "content": "x"}], "tools": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    ],
    ids=["empty", "cut", "not utf-8", "lone surrogate", "NaN", "Infinity", "1e999", "deep", "deep but closed"],
)
def test_bad_json_is_refused(body: bytes) -> None:
    reply = client().post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert reply.status_code == 400
    assert reply.json()["error"]["message"]


@pytest.mark.parametrize("k", [0, -1, 101, 2**31, 1.5, "4", True, None])
def test_bad_k_is_refused(k: Any) -> None:
    reply = client().post("/v1/retrieve", json={"query": "suit", "k": k})
    assert reply.status_code == 400
    assert "k:" in reply.json()["error"]["message"]


@pytest.mark.parametrize("query", ["", " \n", "x" * 20_001, "a\0b", 7, None, ["suit"]])
def test_bad_queries_are_refused(query: Any) -> None:
    assert client().post("/v1/retrieve", json={"query": query}).status_code == 400


@pytest.mark.parametrize("text", ["<|im_start|>system", "‮txet", "𠀀𠀁", "' OR 1=1 --", "{{7*7}} {question}", "../../etc/passwd"])
def test_odd_text_is_only_text(text: str) -> None:
    reply = client().post("/v1/chat/completions", json={"model": "graft", "messages": [{"role": "user", "content": text}]})
    assert reply.status_code == 200


def test_a_large_body_is_refused() -> None:
    body = json.dumps(QUESTION).encode() + b" " * 1_000_001
    reply = client().post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


def test_other_content_types_routes_and_methods_are_refused_in_the_same_shape() -> None:
    http = client()
    reply = http.post("/v1/chat/completions", content=json.dumps(QUESTION), headers={"content-type": "text/plain"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (415, "unsupported_media_type")
    assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert http.get("/v1/chat/completions").json()["error"]["code"] == "method_not_allowed"
    assert http.get("/docs").status_code == 404


def test_an_unknown_model_is_named_with_the_known() -> None:
    reply = client().post("/v1/chat/completions", json={**QUESTION, "model": "gpt-9"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert "graft" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/retrieve", "/v1/chat/completions", "/v1/nothing", "/docs", "http://testserver//healthz", "/healthz/"]
)
@pytest.mark.parametrize("key", [None, "Bearer wrong", "secret", "Bearer secre", "bearer secret", "Bearer secret ", "Bearer ü"])
def test_every_route_but_health_wants_the_key(path: str, key: str | None) -> None:
    http = client(doors=Doors(secret="secret-"))
    headers = {"authorization": key.encode()} if key else {}
    for method in ("GET", "POST"):
        reply = http.request(method, path, headers=headers, follow_redirects=False)
        assert reply.status_code == 401
        assert reply.json()["error"]["code"] == "invalid_api_key"
        assert "secret-" not in reply.text


def test_the_right_key_opens_and_health_needs_none() -> None:
    http = client(doors=Doors(secret="secret"))
    assert http.get("/healthz").status_code == 200
    assert http.get("/v1/models", headers={"authorization": "Bearer secret"}).status_code == 200
    twice = [("authorization", "Bearer wrong"), ("authorization", "Bearer secret")]
    assert http.get("/v1/models", headers=twice).status_code == 401
    with pytest.raises(InputError, match="empty"):
        create_app(pipeline(), doors=Doors(secret=" "))


FAILURES: list[tuple[GraftError, int, str]] = [
    (ModelUnavailable("http://10.0.0.7:8000 is down"), 503, "model_unavailable"),
    (PromptTooLong("5,000 tokens do not fit 4,096"), 400, "context_length_exceeded"),
    (InputError("the question is odd"), 400, "invalid_value"),
    (CorpusLocked("/srv/corpus is locked"), 503, "corpus_busy"),
    (CorpusDamaged("/srv/corpus/x.npy is damaged"), 500, "corpus_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), FAILURES, ids=[case[2] for case in FAILURES])
@pytest.mark.parametrize("streaming", [False, True])
def test_errors_before_the_first_word_have_a_status(error: GraftError, status: int, code: str, streaming: bool) -> None:
    shelf = OneShelf(error)
    reply = client(shelf=shelf).post("/v1/chat/completions", json={**QUESTION, "stream": streaming})
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    if status >= 500:
        assert "10.0.0.7" not in reply.text
        assert "/srv" not in reply.text
    assert client(shelf=shelf).post("/v1/retrieve", json={"query": "suit"}).status_code == status


def test_an_unexpected_error_shows_nothing_of_the_inside(caplog: pytest.LogCaptureFixture) -> None:
    reply = client(shelf=OneShelf(RuntimeError("password is hunter2"))).post("/v1/chat/completions", json=QUESTION)
    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "server_error")
    assert "hunter2" not in reply.text
    assert "hunter2" in caplog.text


def test_an_error_in_the_middle_of_a_stream_is_an_event() -> None:
    class FailsLate(Scripted):
        async def acount(self, prompt: Any) -> int:
            return 40

    model = FailsLate(error=ModelUnavailable("http://10.0.0.7 went away"), fails_at=4)
    reply = client(model).post("/v1/chat/completions", json={**QUESTION, "stream": True})
    assert reply.status_code == 200
    *chunks, last = events(reply.text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks) == "A suit may be"
    assert last["error"]["code"] == "model_unavailable"
    assert "10.0.0.7" not in reply.text


def test_health_is_503_when_the_model_or_the_corpus_is_down(caplog: pytest.LogCaptureFixture) -> None:
    reply = client(Scripted(error=ModelUnavailable("http://10.0.0.7 is down"))).get("/healthz")
    assert reply.status_code == 503
    assert reply.json()["models"] == [{"type": "Scripted", "status": "unavailable"}]

    class Gone(OneShelf):
        def __len__(self) -> int:
            raise CorpusDamaged("/srv/corpus is gone")

    reply = client(shelf=Gone()).get("/healthz")
    assert reply.status_code == 503
    assert "/srv" not in reply.text
    assert "http://10.0.0.7 is down" in caplog.text  # the log has the reasons
    assert "/srv/corpus is gone" in caplog.text


def test_health_is_503_and_not_an_error_whatever_a_model_raises() -> None:
    class Broken(Scripted):
        async def acount(self, prompt: Any) -> int:
            raise RuntimeError("out of order")

    assert client(Broken()).get("/healthz").status_code == 503


def test_an_incomplete_or_missing_pipeline_fails_at_the_start() -> None:
    with pytest.raises(GraftError):
        create_app(Pipeline())
    with pytest.raises(InputError, match="no pipeline"):
        create_app({})


def test_models_and_retrievers_are_warmed_when_the_server_starts() -> None:
    class Counting(Scripted):
        counted = 0

        async def acount(self, prompt: Any) -> int:
            self.counted += 1
            return 40

    model, shelf = Counting(), OneShelf()
    with client(model, shelf) as http:
        http.get("/v1/models")
        assert (model.counted, len(shelf.filters)) == (1, 1)
    broken = OneShelf(CorpusDamaged("gone"))
    with client(Scripted(error=ModelUnavailable("down")), broken) as http:
        assert http.get("/v1/models").status_code == 200
        assert len(broken.filters) == 1
