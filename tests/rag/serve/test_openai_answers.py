"""The shapes are those of the answers that the server gives: nothing missing, nothing more."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError
from starlette.testclient import TestClient

from rag.core.errors import ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.serve.app import create_app
from rag.serve.openai_answers import ChatAnswer, ChatChunk, Error, HealthAnswer, ModelList, RetrieveAnswer, TextAnswer, TextChunk
from rag.serve.routes import completions
from tests.rag.serve.parts import Scripted, app_of, pipeline, service

CHAT = {"model": "graft", "messages": [{"role": "user", "content": "How long may a suit be worn outside?"}]}
PROMPT = {"model": "graft", "prompt": "How long may a suit be worn outside?"}


def check(shape: type[BaseModel], body: Any) -> None:
    """Raises if ``body`` lacks something, or has what ``shape`` does not know."""
    assert shape.model_validate(body, strict=True).model_dump(exclude_unset=True) == body


def events(text: str) -> list[Any]:
    return [json.loads(line[6:]) for line in text.split("\n") if line.startswith("data: {")]


def test_the_answers_of_the_server_have_these_shapes() -> None:
    http = TestClient(create_app(pipeline()))
    check(ChatAnswer, http.post("/v1/chat/completions", json=CHAT).json())
    check(RetrieveAnswer, http.post("/v1/retrieve", json={"query": "suit"}).json())
    check(ModelList, http.get("/v1/models").json())
    check(HealthAnswer, http.get("/healthz").json())
    check(Error, http.post("/v1/chat/completions", json={}).json())
    check(Error, http.get("/v1/nothing").json())
    down = TestClient(create_app(pipeline(Scripted(error=ModelUnavailable("down")))))
    check(HealthAnswer, down.get("/healthz").json())


def test_the_chunks_of_streams_have_these_shapes() -> None:
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = events(TestClient(create_app(pipeline())).post("/v1/chat/completions", json={**CHAT, **asked}).text)
    assert len(chunks) > 5
    for chunk in chunks:
        check(ChatChunk, chunk)
    http = TestClient(app_of(completions.routes(service({"graft": pipeline()}))))
    check(TextAnswer, http.post("/v1/completions", json=PROMPT).json())
    chunks = events(http.post("/v1/completions", json={**PROMPT, **asked}).text)
    assert len(chunks) > 5
    for chunk in chunks:
        check(TextChunk, chunk)


def test_steps_and_revised_texts_have_these_shapes() -> None:
    from rag.core.trace import TextDelta, ToolCalled, emit

    async def revising(question: str) -> str:
        emit(ToolCalled("calculator", "1/0", error="division by zero"))
        emit(TextDelta("first draft"))
        return "final"

    http = TestClient(app_of(completions.routes(service({"graft": Pipeline().add("revising", revising)}))))
    chunks = events(http.post("/v1/completions", json={**PROMPT, "stream": True}).text)
    assert chunks[-1]["graft"]["text"] == "final"
    assert any("event" in chunk.get("graft", {}) for chunk in chunks)
    for chunk in chunks:
        check(TextChunk, chunk)


def test_the_check_can_fail() -> None:
    body = TestClient(create_app(pipeline())).get("/v1/models").json()
    with pytest.raises(AssertionError):
        check(ModelList, {**body, "more": 1})
    with pytest.raises(ValidationError):
        check(ModelList, {"object": "list"})
