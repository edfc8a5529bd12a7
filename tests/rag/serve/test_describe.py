"""What a stream tells of the pipeline at work, to those who ask for it and to nobody else."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError
from starlette.testclient import TestClient

from rag.core.errors import ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.core.trace import Doubted, Judged, NodeFinished, Span, TextDelta, TokensWritten, emit
from rag.core.types import Token
from rag.serve.app import create_app
from rag.serve.chat import Completion
from rag.serve.completions import TextCompletion
from rag.serve.describe import describe_detail
from rag.serve.openai_answers import ChatChunk, TextChunk
from rag.serve.openai_types import GraftOptions
from tests.rag.serve.parts import pipeline

ASKED: dict[str, Any] = {"model": "graft", "messages": [{"role": "user", "content": "How long?"}], "stream": True}
DOUBT = Doubted("It is 27.", ((" 27", 0.25),), 0.8, ("It is",))
JUDGEMENT = Judged("It is 35.", "p1", 1.75, 0.9, 1.0, -0.5, 0.123456)


async def watched(question: str) -> str:
    emit(DOUBT)
    emit(JUDGEMENT)
    emit(TextDelta("It is 35"))
    emit(TokensWritten.of([Token("It", 1, 0.0, 0, 2), Token("", 2, -1.0, 2, 2), Token(" is 35", 3, math.log(0.5), 2, 8)]))
    return "It is 35"


def chunks(pipe: Pipeline, **graft: Any) -> list[Any]:
    with TestClient(create_app(pipe)) as http:
        text = http.post("/v1/chat/completions", json={**ASKED, **({"graft": graft} if graft else {})}).text
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]


def told(found: list[Any]) -> list[Any]:
    return [chunk["graft"]["event"] for chunk in found if "event" in chunk.get("graft", {})]


def test_nodes_probabilities_doubts_and_judgements_are_told() -> None:
    found = chunks(Pipeline().add("answer", watched), events=True)
    started, doubted, judged, tokens, finished = told(found)
    assert started == {"type": "node_started", "node": "answer"}
    assert doubted == {"type": "doubted", "sentence": "It is 27.", "weak": [[" 27", 0.25]], "theta": 0.8, "queries": ["It is"]}
    scores = {"score": 1.75, "relevance": 0.9, "support": 1.0, "utility": -0.5, "likelihood": 0.1235}
    assert judged == {"type": "judged", "text": "It is 35.", "source": "p1", **scores, "dropped": False}
    assert tokens == {"type": "tokens", "tokens": [["It", 1.0], [" is 35", 0.5]]}
    assert (finished["type"], finished["node"], set(finished)) == ("node_finished", "answer", {"type", "node", "seconds"})
    assert 0 <= finished["seconds"] < 60
    for chunk in found:
        assert ChatChunk.model_validate(chunk, strict=True).model_dump(exclude_unset=True) == chunk


@pytest.mark.parametrize("graft", [{}, {"events": False}, {"timeout": 5}])
def test_without_the_option_a_stream_is_as_ever(graft: dict[str, Any]) -> None:
    assert told(chunks(Pipeline().add("answer", watched), **graft)) == []
    assert [event["type"] for event in told(chunks(pipeline(), **graft))] == ["retrieved"]


def test_the_nodes_of_a_call_are_told_in_their_order() -> None:
    events = told(chunks(pipeline(), events=True))
    steps = [(event["type"], event.get("node")) for event in events]
    assert steps[:2] == [("node_started", "answer"), ("node_started", "search")]
    assert ("node_finished", "search") in steps
    assert steps[-1] == ("node_finished", "answer")


def test_of_a_nodes_error_only_the_kind_is_told() -> None:
    event = NodeFinished("answer", Span("answer", error="ModelUnavailable: http://10.0.0.7:8000/v1 does not answer"))
    assert describe_detail(event) == {"type": "node_finished", "node": "answer", "seconds": 0, "error": "ModelUnavailable"}

    async def breaking(question: str) -> str:
        emit(TextDelta("It is "))
        raise ModelUnavailable("http://10.0.0.7 is down")

    broken = chunks(Pipeline().add("answer", breaking), events=True)
    assert [event["error"] for event in told(broken) if "error" in event] == ["ModelUnavailable"]
    assert "error" in broken[-1]
    assert "10.0.0.7" not in json.dumps(broken)


def test_a_whole_answer_says_that_it_tells_nothing_of_it() -> None:
    http = TestClient(create_app(pipeline()))
    for graft, noted in (({"events": True}, True), ({}, False)):
        body = http.post("/v1/chat/completions", json={**ASKED, "stream": False, "graft": graft}).json()
        assert any("graft.events" in note for note in body["choices"][0]["message"]["graft"]["notes"]) == noted


def test_the_older_format_tells_the_same() -> None:
    chunk = TextCompletion.of("graft", [], True).step(DOUBT)
    assert chunk is not None
    assert chunk["graft"] == (Completion("graft", [], True).step(DOUBT) or {})["graft"]
    assert TextCompletion.of("graft", []).step(DOUBT) is None
    body = json.loads(json.dumps(chunk))
    assert TextChunk.model_validate(body, strict=True).model_dump(exclude_unset=True) == body


@pytest.mark.parametrize("value", ["true", 1, None, []])
def test_the_option_is_true_or_false(value: Any) -> None:
    with pytest.raises(ValidationError):
        GraftOptions(events=value)
    reply = TestClient(create_app(pipeline())).post("/v1/chat/completions", json={**ASKED, "graft": {"events": value}})
    assert (reply.status_code, "graft.events" in reply.json()["error"]["message"]) == (400, True)
