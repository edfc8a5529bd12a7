from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.core.registry import component
from rag.core.sync import run_sync
from rag.core.trace import NodeStarted, TextDelta, emit, listener, span
from rag.core.types import Answer
from tests.generators.conftest import hits_of
from tools.ask import AskPipeline
from tools.tool import ToolResult, call_tool


@component
class LampKeeper:
    """Answers anything."""

    async def run(self, question: str) -> Answer:
        emit(TextDelta("noise"))
        return Answer(f"{question} Brass.", sources=tuple(hits_of("The lamp is brass.")))


def ask(pipeline: Any, question: str = "Lamp?") -> ToolResult:
    return run_sync(call_tool(AskPipeline(pipeline), {"question": question}))


def test_a_pipeline_answers_with_its_sources_inside_the_callers_trace() -> None:
    with listener((events := []).append), span("test") as trace:
        result = ask(Pipeline().add("answer", LampKeeper()))
    assert result.text == "Lamp? Brass."
    assert [hit.passage.id for hit in result.hits] == ["p1"]
    assert [child.node for child in trace.children] == ["pipeline"]
    assert not [event for event in events if isinstance(event, (TextDelta, NodeStarted))]


def test_a_path_is_read_on_first_use(tmp_path: Path) -> None:
    file = tmp_path / "other.yaml"
    tool = AskPipeline(str(file))
    assert "there is no such file" in run_sync(call_tool(tool, {"question": "Lamp?"})).error
    file.write_text("nodes: {answer: {type: LampKeeper}}\n")
    assert run_sync(call_tool(tool, {"question": "Lamp?"})).text == "Lamp? Brass."


def test_anything_with_arun_answers() -> None:
    class Oracle:
        async def arun(self, question: str) -> int:
            return len(question)

    assert ask(Oracle()).text == "5"


def test_a_pipeline_that_asks_itself_ends() -> None:
    class Mirror:
        calls = 0

        async def arun(self, question: str) -> str:
            self.calls += 1
            result = await call_tool(AskPipeline(self), {"question": question})
            return result.error or result.text

    mirror = Mirror()
    assert "ask each other more than 3 deep" in ask(mirror).text
    assert mirror.calls == 3


def test_an_empty_question_and_a_failing_pipeline_are_errors() -> None:
    class Failing:
        async def arun(self, question: str) -> str:
            raise InputError("too dark")

    assert "empty" in ask(Failing(), " ").error
    assert ask(Failing()).error == "too dark"


@pytest.mark.parametrize("pipeline", [None, 7, object()])
def test_what_cannot_be_asked_is_refused(pipeline: Any) -> None:
    with pytest.raises(InputError, match="a Pipeline or the path"):
        AskPipeline(pipeline)
