from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from rag.core.trace import Retrieved, TextDelta, ToolCalled
from rag.core.types import Answer, Hit
from rag.serve.asking import first_words
from rag.serve.chat import stream
from rag.serve.completions import TextCompletion
from rag.serve.waiting import Limited
from tests.rag.serve.parts import PASSAGE, TEXT, pipeline


def test_the_whole_answer_is_a_text_with_its_grounds() -> None:
    run = asyncio.run(pipeline().aexplain("How long?"))
    body = TextCompletion.of("graft", ["a remark"]).whole(run)
    assert body["id"].startswith("cmpl-")
    assert (body["object"], body["model"]) == ("text_completion", "graft")
    (choice,) = body["choices"]
    assert (choice["index"], choice["text"], choice["logprobs"], choice["finish_reason"]) == (0, TEXT, None, "stop")
    assert choice["graft"]["sources"][0]["id"] == PASSAGE.id
    assert "a remark" in choice["graft"]["notes"]
    assert body["usage"]["total_tokens"] == 52
    assert "message" not in json.dumps(body)


def test_chunks_carry_text_and_not_messages() -> None:
    completion = TextCompletion.of("graft", [])
    assert completion.chunk({"role": "assistant", "content": ""})["choices"] == [
        {"index": 0, "text": "", "logprobs": None, "finish_reason": None}
    ]
    assert completion.chunk({"content": "a"})["choices"][0]["text"] == "a"
    told = completion.step(Retrieved("q", (Hit(PASSAGE, 1.0, 1),)))
    assert told is not None
    assert told["graft"]["event"]["type"] == "retrieved"
    assert told["choices"][0]["text"] == ""
    assert completion.step(ToolCalled("calculator", "1", "1")) is not None
    assert completion.step(TextDelta("a")) is None
    last = completion.last(Answer("final"), revised=True)
    assert (last["choices"][0]["finish_reason"], last["graft"]["text"]) == ("stop", "final")


def test_a_stream_joins_to_the_whole_and_ends_with_done() -> None:
    async def scenario() -> list[Any]:
        events: AsyncIterator[Any] = pipeline().astream("How long?")
        return [chunk async for chunk in stream(TextCompletion.of("graft", []), await first_words(events), Limited(events), True)]

    *chunks, done = asyncio.run(scenario())
    told = [json.loads(chunk) for chunk in chunks]
    assert done == "[DONE]"
    assert {chunk["object"] for chunk in told} == {"text_completion"}
    assert "".join(piece["text"] for chunk in told for piece in chunk["choices"]) == TEXT
    assert told[-1]["choices"] == []
    assert told[-1]["usage"]["total_tokens"] == 52
