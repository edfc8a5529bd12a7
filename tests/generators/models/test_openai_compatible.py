from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from generators.models.openai_compatible import OpenAICompatible
from rag.core.errors import InputError, MissingCapability, ModelError, ModelRefused, ModelUnavailable
from rag.core.registry import configuration
from rag.core.trace import Span, span
from rag.core.types import Generation, Message, Sampling

TEXT = "Hi你"


def entry(data: bytes, with_bytes: bool = True) -> dict[str, Any]:
    token = data.decode("utf-8", errors="replace")
    others = [{"token": "no", "logprob": -4.0, "bytes": None}, {"token": token, "logprob": -0.5, "bytes": None}]
    return {"token": token, "logprob": -0.5, "bytes": list(data) if with_bytes else None, "top_logprobs": others}


ENTRIES = [entry(b"Hi"), entry(b"\xe4\xbd"), entry(b"\xa0")]


def answer(text: str = TEXT, logprobs: Any = None, finish: Any = "stop", **more: Any) -> httpx.Response:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": logprobs, "finish_reason": finish}
    return httpx.Response(200, json={"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 3}, **more})


def model(script: Any, **changes: Any) -> OpenAICompatible:
    made = OpenAICompatible("http://api.example/v1", "m", retries=1, **changes)
    made._http.transport = script.transport
    made._http.pause = 0.0
    return made


def test_an_answer(script: Any) -> None:
    script.answers = [answer()]
    got = model(script).generate([Message("system", "s"), Message("user", "u")], Sampling(5, 0.5, 0.9, ("x",), 3, None, {7: 1.0}))
    assert got == Generation(TEXT, (), "stop", 9, 3, "m")
    assert json.loads(script.requests[0].content) == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["x"],
        "seed": 3,
        "logit_bias": {"7": 1.0},
    }


def test_penalties_are_sent_where_they_are_set(script: Any) -> None:
    script.answers = [answer()]
    model(script).generate("hello", Sampling(presence_penalty=0.5, frequency_penalty=-1.5))
    body = json.loads(script.requests[0].content)
    assert (body["presence_penalty"], body["frequency_penalty"]) == (0.5, -1.5)


def test_each_call_has_a_span_with_its_counters(script: Any) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}
    script.answers = [answer(), stream_of(delta("Hi", None, "length"), usage)]

    async def run() -> Span:
        with span("test") as here:
            await model(script).agenerate("hello")
            async for _ in model(script).astream("hello", Sampling(max_tokens=2)):
                pass
        return here

    here = asyncio.run(run())
    assert [(call.node, call.inputs["provider"], call.output) for call in here.children] == [
        ("chat m", "openai", "stop"),
        ("chat m", "openai", "length"),
    ]
    assert [call.counts for call in here.children] == [
        {"calls": 1, "prompt_tokens": 9, "generated_tokens": 3},
        {"calls": 1, "prompt_tokens": 9, "generated_tokens": 2},
    ]
    assert here.counts == {}


def test_a_string_becomes_one_user_message(script: Any) -> None:
    script.answers = [answer()]
    model(script, max_tokens_field="max_completion_tokens").generate("hello", Sampling(5))
    body = json.loads(script.requests[0].content)
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    assert body["max_completion_tokens"] == 5
    assert "max_tokens" not in body


def test_logprobs_with_characters_in_pieces(script: Any) -> None:
    script.answers = [answer(logprobs={"content": ENTRIES})]
    got = model(script).generate("hello", Sampling(logprobs=2))
    assert [(t.text, t.start, t.end, t.id) for t in got.tokens] == [("Hi", 0, 2, -1), ("", 2, 2, -1), ("你", 2, 3, -1)]
    assert got.tokens[0].top == ((-1, "Hi", -0.5), (-1, "no", -4.0))
    body = json.loads(script.requests[0].content)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


def test_logprobs_without_bytes(script: Any) -> None:
    script.answers = [answer("Hi there", {"content": [entry(b"Hi", False), entry(b" there", False)]})]
    got = model(script).generate("hello", Sampling(logprobs=0))
    assert [t.text for t in got.tokens] == ["Hi", " there"]


def test_asked_for_and_not_given_logprobs(script: Any) -> None:
    script.answers = [answer()]
    with pytest.raises(MissingCapability, match="use VLLM or Local"):
        model(script).generate("hello", Sampling(logprobs=0))


def test_scoring_is_not_offered(script: Any) -> None:
    with pytest.raises(MissingCapability, match="use VLLM or Local"):
        model(script).score("a", "b")
    assert "score" not in model(script).capabilities


def stream_of(*events: Any, done: bool = True) -> httpx.Response:
    return httpx.Response(
        200, content="".join(f"data: {json.dumps(e)}\n\n" for e in events).encode() + (b"data: [DONE]\n\n" if done else b"")
    )


def delta(text: str | None, entries: Any = None, finish: Any = None) -> dict[str, Any]:
    return {"choices": [{"delta": {} if text is None else {"content": text}, "logprobs": {"content": entries}, "finish_reason": finish}]}


def test_streaming_equals_generating(script: Any) -> None:
    usage = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}}
    events = stream_of(delta(""), delta("Hi", ENTRIES[:1]), delta("你", ENTRIES[1:]), delta(None, None, "stop"), usage)
    script.answers = [events, answer(logprobs={"content": ENTRIES})]
    talker = model(script)
    *pieces, last = talker.stream("hello", Sampling(logprobs=2))
    assert pieces == ["Hi", "你"]
    assert last == talker.generate("hello", Sampling(logprobs=2))


def test_a_stream_that_ends_without_a_reason(script: Any) -> None:
    script.answers = [stream_of(delta("Hi"))]
    with pytest.raises(ModelUnavailable, match="finish_reason"):
        list(model(script).stream("hello"))


def test_length(script: Any) -> None:
    script.answers = [answer(finish="length")]
    assert model(script).generate("hello").finish == "length"


@pytest.mark.parametrize("body", [{}, [], {"choices": [{}]}, {"choices": [{"message": None}]}, {"choices": 5}])
def test_answers_of_another_shape(script: Any, body: Any) -> None:
    script.answers = [httpx.Response(200, json=body)]
    with pytest.raises(ModelError, match="not OpenAI's"):
        model(script).generate("hello")


def test_logprobs_of_another_shape(script: Any) -> None:
    script.answers = [answer(logprobs={"content": [{"logprob": -1.0}]})]
    with pytest.raises(ModelError, match="log-probabilities in a shape"):
        model(script).generate("hello", Sampling(logprobs=0))


def test_the_key_is_sent_and_never_shown(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    script.answers = [httpx.Response(401, json={"error": {"message": "Incorrect API key provided: sk-secret"}})]
    talker = model(script)
    with pytest.raises(ModelRefused) as caught:
        talker.generate("hello")
    assert script.requests[0].headers["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in f"{caught.value}{talker!r}{vars(talker)}{configuration(talker)}"


def test_the_count_is_not_below_bytes_by_three(script: Any) -> None:
    assert model(script).count("abcdef") == 2 + 4
    assert model(script).count([Message("user", "你好"), Message("user", "")]) == 2 + 4 + 4


@pytest.mark.parametrize("change", [{"model": ""}, {"window": 0}, {"max_tokens_field": "n"}, {"url": "nowhere"}, {"api_key_env": "sk-x"}])
def test_bad_arguments(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        OpenAICompatible(**({"url": "http://x/v1", "model": "m"} | change))
