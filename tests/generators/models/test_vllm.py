"""The connection to vLLM against a scripted server that answers in vLLM 0.32's shapes; tests/vllm has the real one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from generators.models.vllm import VLLM
from rag.core.errors import InputError, ModelError, ModelRefused, ModelUnavailable, PromptTooLong
from rag.core.registry import configuration
from rag.core.sync import background_loop
from rag.core.trace import Span, span
from rag.core.types import Generation, Message, Sampling

# token id -> bytes; 2 ends the text, the others are a byte-level vocabulary with characters in pieces
VOCABULARY = {
    2: b"<|end|>",
    10: b"Hi",
    11: b" there",
    20: b"\xe4\xbd",
    21: b"\xa0",
    22: b"\xf0\x9f",
    23: b"\x98",
    24: b"\x80",
    30: b" stop",
    31: b"ped",
}


def decode(ids: list[int]) -> str:
    return b"".join(VOCABULARY[i] for i in ids).decode("utf-8", errors="replace")


def server_pieces(ids: list[int]) -> list[str]:
    """Each token as vLLM reports it: empty until a character is complete."""
    pieces, run = [], []
    for token in ids:
        run.append(token)
        text = decode(run)
        pieces.append("" if text.endswith("�") else text)
        run = run if text.endswith("�") else []
    return pieces


def answer_to(body: dict[str, Any], ids: list[int], text: str, finish: str = "stop", stop_reason: Any = None) -> dict[str, Any]:
    choice: dict[str, Any] = {
        "index": 0,
        "text": text,
        "logprobs": None,
        "finish_reason": finish,
        "stop_reason": stop_reason,
        "token_ids": ids,
    }
    if body.get("logprobs") is not None:
        by_id = body["return_tokens_as_token_ids"]
        names = [f"token_id:{i}" for i in ids] if by_id else server_pieces(ids)
        other = "token_id:10" if by_id else "Hi"
        choice["logprobs"] = {
            "text_offset": [0] * len(ids),
            "tokens": names,
            "token_logprobs": [-0.25] * len(ids),
            "top_logprobs": [{name: -0.25, other: -3.0, "token_id:22": -2.0} for name in names],
        }
    return {"id": "x", "object": "text_completion", "choices": [choice], "usage": {"completion_tokens": len(ids)}}


@pytest.fixture
def server(script: Any) -> Any:
    """A script with vLLM's side routes; a test sets ``script.routes["/v1/completions"]``."""

    def tokenize(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        length = len(body["prompt"]) if "prompt" in body else 5 + sum(len(m["content"]) for m in body["messages"])
        return httpx.Response(
            200, json={"count": length, "max_model_len": 64, "tokens": list(range(100, 100 + length)), "token_strs": None}
        )

    def detokenize(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"prompt": decode(json.loads(request.content)["tokens"])})

    cards = [{"id": "base", "max_model_len": 64}, {"id": "other", "max_model_len": 32}]
    script.routes = {"/v1/models": lambda r: httpx.Response(200, json={"data": cards}), "/tokenize": tokenize, "/detokenize": detokenize}
    return script


def model(script: Any, **changes: Any) -> VLLM:
    made = VLLM("http://models.example:8000/v1", retries=1, **changes)
    made._http.transport = script.transport
    made._http.pause = 0.0
    return made


def completing(server: Any, ids: list[int], text: str, *args: Any) -> None:
    server.routes["/v1/completions"] = lambda r: httpx.Response(200, json=answer_to(json.loads(r.content), ids, text, *args))


def last_body(server: Any, path: str = "/v1/completions") -> dict[str, Any]:
    return dict(json.loads([r for r in server.requests if r.url.path == path][-1].content))


def test_a_plain_answer(server: Any) -> None:
    completing(server, [10, 11, 2], "Hi there")
    got = model(server).generate("hello")
    assert got == Generation("Hi there", (), "stop", 5, 3, "base")
    body = last_body(server)
    assert body["prompt"] == [100, 101, 102, 103, 104]
    assert body["max_tokens"] == 64 - 5
    assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (0, 0.0, 1.0)
    assert "logprobs" not in body
    assert "seed" not in body


def test_every_field_of_sampling_is_sent(server: Any) -> None:
    completing(server, [10], "Hi", "length")
    sampling = Sampling(7, 0.5, 0.9, ("a", "b"), 3, 0, {5: -2.0})
    assert model(server).generate("hello", sampling).finish == "length"
    body = last_body(server)
    expected = {"max_tokens": 7, "temperature": 0.5, "top_p": 0.9, "stop": ["a", "b"], "seed": 3, "logprobs": 0, "logit_bias": {"5": -2.0}}
    assert {key: body[key] for key in expected} == expected


@pytest.mark.parametrize("logprobs", [0, 2])
def test_offsets_of_characters_in_pieces(server: Any, logprobs: int) -> None:
    ids = [10, 20, 21, 22, 23, 24, 11, 2]
    completing(server, ids, "Hi你😀 there")
    got = model(server).generate("hello", Sampling(logprobs=logprobs))
    assert [t.id for t in got.tokens] == ids
    assert [t.text for t in got.tokens] == ["Hi", "", "你", "", "", "😀", " there", ""]
    assert "".join(got.text[t.start : t.end] for t in got.tokens) == got.text
    assert got.logprob == -0.25 * 8
    if logprobs:
        assert got.tokens[1].top == ((20, "�", -0.25), (22, "�", -2.0))
        assert got.tokens[-1].top[0] == (2, "<|end|>", -0.25)
    else:
        assert all(t.top == () for t in got.tokens)


def test_named_tokens_are_asked_for_by_id(server: Any) -> None:
    completing(server, [10, 2], "Hi")
    got = model(server).generate("hello", Sampling(max_tokens=3, logprob_ids=(22, 10)))
    body = last_body(server)
    assert (body["logprob_token_ids"], body["logprobs"], body["return_tokens_as_token_ids"]) == ([22, 10], 2, True)
    assert {id for id, _, _ in got.tokens[0].top} == {10, 22}
    assert {id for id, _, _ in got.tokens[1].top} == {10, 22}  # the token that was written was not asked for


def test_an_answer_that_was_begun_is_continued(server: Any) -> None:
    completing(server, [10], "Hi")
    model(server).generate([Message("user", "abc"), Message("assistant", "It is ")])
    chat, beginning = (json.loads(r.content) for r in server.requests if r.url.path == "/tokenize")
    assert chat["messages"] == [{"role": "user", "content": "abc"}]
    assert (beginning["prompt"], beginning["add_special_tokens"]) == ("It is ", False)
    assert last_body(server)["prompt"] == [*range(100, 108), *range(100, 106)]


@pytest.mark.parametrize("logprobs", [0, 1])
def test_a_stop_string_cuts_the_tokens(server: Any, logprobs: int) -> None:
    completing(server, [10, 30, 31], "Hi st", "stop", "op")
    got = model(server).generate("hello", Sampling(stop=("op",), logprobs=logprobs))
    assert [(t.text, t.start, t.end) for t in got.tokens] == [("Hi", 0, 2), (" st", 2, 5)]
    assert got.generated_tokens == 3


def test_token_texts_are_asked_for_once(server: Any) -> None:
    completing(server, [10, 20, 21], "Hi你")
    wearer = model(server)
    wearer.generate("hello", Sampling(logprobs=1))
    asked = len(server.requests)
    wearer.generate("hello", Sampling(logprobs=1))
    assert [r.url.path for r in server.requests[asked:]] == ["/v1/completions"]


def paths(server: Any) -> list[str]:
    return [request.url.path for request in server.requests]


def test_a_prompt_that_was_counted_is_not_tokenised_again(server: Any) -> None:
    completing(server, [10], "Hi")
    counted = model(server, model="base")
    assert counted.count([Message("user", "hello")]) == 10
    counted.generate([Message("user", "hello")])
    assert paths(server) == ["/tokenize", "/v1/completions"]
    counted.with_adapter("legal").generate([Message("user", "hello")])  # an adapter may bring a tokenizer of its own
    assert paths(server)[2:] == ["/tokenize", "/v1/completions"]


def test_only_so_many_prompts_are_remembered(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generators.models.vllm._REMEMBERED", 2)
    counted = model(server, model="base")
    for text in ("a", "b", "a", "c", "a", "b"):
        counted.count(text)
    assert [json.loads(r.content)["prompt"] for r in server.requests] == ["a", "b", "c", "b"]


def test_chat_messages_go_to_the_servers_template(server: Any) -> None:
    completing(server, [10], "Hi")
    messages = [Message("system", "ab"), Message("user", "cde")]
    talker = model(server)
    assert talker.generate(messages).prompt_tokens == 10
    assert last_body(server, "/tokenize")["messages"] == [{"role": "system", "content": "ab"}, {"role": "user", "content": "cde"}]
    assert talker.count(messages) == 10
    assert talker.count("four") == 4


def stream_of(events: list[dict[str, Any]], done: bool = True) -> httpx.Response:
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return httpx.Response(200, content="".join([*lines, *(["data: [DONE]\n\n"] if done else [])]).encode())


@pytest.mark.parametrize("logprobs", [None, 0, 1])
def test_streaming_equals_generating(server: Any, logprobs: int | None) -> None:
    def complete(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if not body.get("stream"):
            return httpx.Response(200, json=answer_to(body, [10, 20, 21, 2], "Hi你"))
        parts = [([10], "Hi", None), ([20], "", None), ([21, 2], "你", "stop")]
        events = [answer_to(body, ids, text, finish) for ids, text, finish in parts]  # type: ignore[arg-type]
        if logprobs == 0:
            events[2]["choices"][0]["logprobs"]["tokens"][0] = "你"
        return stream_of([*events, {"choices": [], "usage": {}}])

    server.routes["/v1/completions"] = complete
    talker = model(server)
    sampling = Sampling(logprobs=logprobs)
    *pieces, last = talker.stream("hello", sampling)
    assert pieces == ["Hi", "你"]
    assert last == talker.generate("hello", sampling)


def test_a_text_that_is_enough_ends_the_stream(server: Any) -> None:
    written = [([10], "Hi", ""), ([11], " there", ""), ([30], " st", "length")]
    asked = {"logprobs": 0, "return_tokens_as_token_ids": False}
    events = [answer_to(asked, *part) for part in written]
    server.routes["/v1/completions"] = lambda r: stream_of(events)
    sampling = Sampling(max_tokens=9, logprobs=0, until=lambda text: "there" in text)
    with span("node") as seen:
        got = asyncio.run(model(server, model="base").agenerate("hello", sampling))
    assert last_body(server)["stream"] is True
    assert (got.text, got.finish, got.generated_tokens) == ("Hi there", "stop", 2)
    assert [token.text for token in got.tokens] == ["Hi", " there"]
    assert seen.children[0].counts == {"calls": 1, "prompt_tokens": 5, "generated_tokens": 2}
    assert (seen.children[0].node, seen.children[0].output) == ("chat base", "stop")
    patient = model(server, model="base").generate("hello", Sampling(max_tokens=9, until=lambda text: False))
    assert (patient.text, patient.finish) == ("Hi there st", "length")


def test_a_broken_stream_that_nobody_saw_is_asked_for_again(server: Any) -> None:
    def complete(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        return (
            stream_of([answer_to({}, [10], "Hi", "")], done=False)
            if body.get("stream")
            else httpx.Response(200, json=answer_to(body, [10, 11], "Hi there"))
        )

    server.routes["/v1/completions"] = complete
    with span("node") as seen:
        got = asyncio.run(model(server, model="base").agenerate("hello", Sampling(max_tokens=9, until=lambda text: False)))
    assert (got.text, got.finish) == ("Hi there", "stop")
    assert seen.total("calls") == 2
    assert "broke off" in seen.children[0].notes[0]


def test_what_is_remembered_cannot_be_changed_by_a_caller(server: Any) -> None:
    counted = model(server, model="base")
    asyncio.run(counted.aencode("hello")).clear()
    assert len(asyncio.run(counted.aencode("hello"))) == 5


def test_a_stream_cut_mid_way(server: Any) -> None:
    server.routes["/v1/completions"] = lambda r: stream_of([answer_to({}, [10], "Hi", "")], done=False)
    pieces = model(server).stream("hello")
    assert next(pieces) == "Hi"
    with pytest.raises(ModelUnavailable, match="broke off after 1 events"):
        next(pieces)


@pytest.mark.parametrize("finish", ["", "abort"])
def test_an_answer_that_the_server_gave_up(server: Any, finish: str) -> None:
    completing(server, [10], "Hi", finish)
    with pytest.raises(ModelUnavailable, match="broke off its answer"):
        model(server).generate("hello")


def test_score(server: Any) -> None:
    def complete(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        assert (body["prompt_logprobs"], body["max_tokens"]) == (0, 1)
        entries = [None, *({str(i): {"logprob": -1.5, "rank": 1, "decoded_token": "x"}} for i in body["prompt"][1:])]
        return httpx.Response(200, json={"choices": [{"text": "", "prompt_logprobs": entries}]})

    server.routes["/v1/completions"] = complete
    got = model(server).score("hello", "xxx")
    assert last_body(server)["prompt"] == [100, 101, 102, 103, 104, 100, 101, 102]
    assert [(t.text, t.start, t.logprob) for t in got.tokens] == [("x", 0, -1.5), ("x", 1, -1.5), ("x", 2, -1.5)]
    assert (got.logprob, got.prompt_tokens, got.text) == (-4.5, 5, "xxx")
    special = [json.loads(r.content)["add_special_tokens"] for r in server.requests if r.url.path == "/tokenize"]
    assert sorted(special) == [False, True]


def test_a_server_without_prompt_logprobs(server: Any) -> None:
    server.routes["/v1/completions"] = lambda r: httpx.Response(200, json={"choices": [{"text": "", "prompt_logprobs": None}]})
    with pytest.raises(ModelError, match="no log-probabilities of the prompt"):
        model(server).score("a", "b")


def test_a_prompt_that_fills_the_window(server: Any) -> None:
    with pytest.raises(PromptTooLong, match=r"64 tokens.*holds 64"):
        model(server).generate("x" * 64)
    with pytest.raises(PromptTooLong, match=r"64 tokens together.*holds 64 tokens, 1 of them"):
        model(server).score("x" * 60, "yyyy")
    assert not [r for r in server.requests if r.url.path == "/v1/completions"]


def test_name_and_window_are_asked_for_once_and_also_on_the_background_loop(server: Any) -> None:
    async def read(asked: VLLM) -> tuple[str, int]:
        return asked.name, asked.window

    asked = model(server)
    assert asyncio.run_coroutine_threadsafe(read(asked), background_loop()).result(10) == ("base", 64)
    assert (asked.name, asked.window) == ("base", 64)
    assert len(server.requests) == 1
    assert model(server, model="other").window == 32


def test_a_model_that_is_not_served(server: Any) -> None:
    with pytest.raises(ModelRefused, match="no model 'mine'; it serves: base, other"):
        assert model(server, model="mine").window


@pytest.mark.parametrize("answer", [{}, {"choices": [{}]}, {"choices": 3}, [], "x", {"choices": [{"text": "a", "token_ids": ["b"]}]}])
def test_answers_of_another_shape(server: Any, answer: Any) -> None:
    server.routes["/v1/completions"] = lambda r: httpx.Response(200, json=answer)
    with pytest.raises(ModelError):
        model(server).generate("hello")


@pytest.mark.parametrize("path", ["/v1/models", "/tokenize"])
def test_a_server_that_is_not_vllm(server: Any, path: str) -> None:
    server.routes[path] = lambda r: httpx.Response(200, json={"hello": 1})
    with pytest.raises(ModelError, match="OpenAICompatible"):
        model(server).generate("hello")


def test_each_call_has_a_span_with_its_counters(server: Any) -> None:
    completing(server, [10, 11], "Hi there")

    async def run() -> Span:
        with span("test") as here:
            await model(server).agenerate("hello", Sampling(max_tokens=9))
            await model(server, adapter="worn").acount("hello")
        return here

    (call,) = asyncio.run(run()).children
    assert (call.node, call.output) == ("chat base", "stop")
    assert call.inputs == {"provider": "vllm", "max_tokens": "9", "temperature": "0.0"}
    assert call.counts == {"calls": 1, "prompt_tokens": 5, "generated_tokens": 2}


def test_a_stream_that_is_left_has_a_span_with_what_was_written(server: Any) -> None:
    server.routes["/v1/completions"] = lambda r: stream_of([answer_to({}, [10], "Hi", ""), answer_to({}, [11], " there")])

    async def run() -> Span:
        with span("test") as here:
            pieces = model(server).astream("hello")
            assert await anext(pieces) == "Hi"
            await pieces.aclose()  # type: ignore[attr-defined]
        return here

    (call,) = asyncio.run(run()).children
    assert (call.node, call.error) == ("chat base", "cancelled")
    assert call.counts == {"calls": 1, "prompt_tokens": 5, "generated_tokens": 1}


def test_a_server_that_fails_has_a_span_that_says_so(server: Any) -> None:
    server.routes["/v1/completions"] = lambda r: httpx.Response(503, text="busy")
    with span("test") as here, pytest.raises(ModelUnavailable):
        asyncio.run(model(server).agenerate("hello"))
    assert here.children[0].error.startswith("ModelUnavailable: ")


def test_penalties_are_sent_where_they_are_set(server: Any) -> None:
    completing(server, [10], "Hi")
    model(server).generate("hello", Sampling(presence_penalty=0.5, frequency_penalty=-1.5))
    assert (last_body(server)["presence_penalty"], last_body(server)["frequency_penalty"]) == (0.5, -1.5)
    model(server).generate("hello")
    assert not {"presence_penalty", "frequency_penalty"} & last_body(server).keys()


def test_many_at_once_keep_their_order_and_raise_the_first_error_as_it_is(server: Any) -> None:
    def complete(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if len(body["prompt"]) == 9:
            return httpx.Response(400, json={"error": {"message": "nine"}})
        return httpx.Response(200, json=answer_to(body, [10] * len(body["prompt"]), "Hi" * len(body["prompt"])))

    server.routes["/v1/completions"] = complete
    got = model(server).generate_many(["a" * n for n in range(1, 9)])
    assert [g.text for g in got] == ["Hi" * n for n in range(1, 9)]
    with pytest.raises(ModelRefused, match="nine"):
        model(server).generate_many(["a", "a" * 9, "aa"])


def test_bad_inputs_ask_nothing(server: Any) -> None:
    with pytest.raises(InputError):
        model(server).generate("")
    with pytest.raises(InputError):
        model(server).generate("a", Sampling(max_tokens=0))
    with pytest.raises(InputError):
        model(server).score("a", "")
    assert server.requests == []


def test_configuration_and_capabilities(server: Any) -> None:
    assert configuration(VLLM("http://x/v1", adapter="a", api_key_env="KEY")) == {
        "url": "http://x/v1",
        "adapter": "a",
        "api_key_env": "KEY",
    }
    assert VLLM().capabilities == {"logprobs", "score", "logit_bias", "token_ids", "prefix", "adapters"}
    with pytest.raises(InputError, match="http"):
        VLLM("localhost:8000")
