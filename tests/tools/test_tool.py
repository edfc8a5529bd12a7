from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from rag.core.errors import InputError, RunError
from rag.core.sync import run_sync
from rag.core.trace import TextDelta, ToolCalled, emit, listener, span
from tools.calculator import Calculator
from tools.function import FunctionTool
from tools.tool import ToolResult, call_tool, check_tools


class Stubborn:
    """A tool that goes on when it is cancelled."""

    name = "stubborn"
    description = ""
    schema: Mapping[str, Any] = {"type": "object"}

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        for _ in range(3):
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                continue
        return "late"


def call(fn: Any, arguments: dict[str, Any] | None = None, **limits: Any) -> ToolResult:
    tool = FunctionTool(fn) if inspect.isfunction(fn) else fn
    return run_sync(call_tool(tool, arguments or {}, **limits))


def test_a_result_is_counted_noted_and_an_event() -> None:
    with listener((events := []).append), span("test") as trace:
        result = call(Calculator(), {"expression": "27 + 4 * 2"})
    assert result == ToolResult("35")
    assert events == [ToolCalled("Calculator", "27 + 4 * 2", "35")]
    assert (trace.counts, trace.notes) == ({"tool_calls": 1}, ["Calculator(27 + 4 * 2) -> 35"])


def test_a_tool_that_raises_is_an_error_of_one_short_line() -> None:
    def broken() -> str:
        raise ValueError("no oil\n" * 1000)

    with listener((events := []).append), span("test") as trace:
        result = call(broken)
    assert result.text == ""
    assert result.error.startswith("broken failed: ValueError: no oil no oil")
    assert len(result.error) == 300
    assert events == [ToolCalled("broken", "", "", result.error)]
    assert trace.counts == {"tool_calls": 1, "tool_errors": 1}


def test_a_tool_that_hangs_is_left_after_its_time() -> None:
    released = threading.Event()

    def hangs() -> str:
        released.wait(60)
        return "late"

    async def waits() -> str:
        await asyncio.sleep(60)
        return "late"

    try:
        assert call(waits, timeout=0.05).error == "waits took longer than 0.05 s"
        assert call(hangs, timeout=0.05).error == "hangs took longer than 0.05 s"
        assert call(Stubborn(), timeout=0.05).error == "stubborn took longer than 0.05 s"
    finally:
        released.set()


def test_cancelling_the_caller_cancels_the_tool() -> None:
    ended: list[str] = []

    async def waits() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return "late"

    async def scenario() -> None:
        task = asyncio.ensure_future(call_tool(FunctionTool(waits), {}, timeout=60))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)

    run_sync(scenario())
    assert ended == ["cancelled"]


def test_a_megabyte_is_cut_and_says_so() -> None:
    result = call(lambda_named("big", lambda: "x" * 1_000_000), limit=100)
    assert result.text == "x" * 100 + " … (cut at 100 of 1,000,000 characters)"


def test_a_tool_that_cancels_itself_or_gives_no_text_is_an_error() -> None:
    class Odd(Stubborn):
        async def acall(self, arguments: Mapping[str, Any]) -> Any:
            if arguments:
                raise asyncio.CancelledError
            return 7

        schema: Mapping[str, Any] = {"properties": {"x": {}}}

    assert call(Odd(), {"x": 1}).error == "stubborn was cancelled"
    assert call(Odd()).error == "stubborn must return text, not int"


def test_bad_arguments_never_reach_the_tool() -> None:
    calls: list[int] = []

    def add(a: int) -> str:
        calls.append(a)
        return str(a)

    assert "unknown argument 'b'" in call(add, {"a": 1, "b": 2}).error
    assert "missing 'a'" in call(add).error
    assert calls == []
    assert call(add, {"a": 1}).text == "1"


def test_text_that_is_written_inside_a_tool_is_not_the_answer() -> None:
    async def chatty() -> str:
        emit(TextDelta("noise"))
        return "result"

    with listener((events := []).append):
        assert call(chatty).text == "result"
    assert [type(event) for event in events] == [ToolCalled]


def test_errors_of_a_tool_pass_as_their_message() -> None:
    async def down() -> str:
        raise RunError("the lamp is out; light it")

    assert call(down).error == "the lamp is out; light it"


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ([Calculator(), Calculator()], "two tools are called 'Calculator'"),
        ([object()], "is no tool"),
    ],
)
def test_names_are_distinct_and_tools_are_tools(tools: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_tools(tools, "here")


def lambda_named(name: str, fn: Any) -> FunctionTool:
    return FunctionTool(fn, name=name)
