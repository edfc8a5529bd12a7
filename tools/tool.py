"""What a tool is, and the one way to call it: checked, bounded in time and size, and written into the trace."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rag.core.errors import GraftError, InputError, RunError
from rag.core.trace import ToolCalled, count, emit, note, undertone
from rag.core.types import Hit
from tools.arguments import check_arguments

_LONGEST_ERROR = 300
"""Characters of an error that go into the trace: a tool's message is foreign text."""


@runtime_checkable
class Tool(Protocol):
    """Something that a model may call by ``name`` (an identifier) with an object that ``schema`` describes as arguments.

    The keyword "examples" of the schema, where it is given, holds arguments to show to the model. Plain attributes serve as well.
    """

    @property
    def name(self) -> str:
        """What the model calls it."""
        ...

    @property
    def description(self) -> str:
        """What it is for, in a line."""
        ...

    @property
    def schema(self) -> Mapping[str, Any]:
        """JSON Schema of the arguments, an object."""
        ...

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """The result as one text. Raises `InputError` if the arguments are bad and `RunError` if the tool fails."""
        ...


@runtime_checkable
class Toolbox(Protocol):
    """A source of tools that are known only when it is asked: a server's."""

    async def atools(self) -> Sequence[Tool]:
        """The tools that it offers now."""
        ...


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave: ``text``, or why there is none in ``error``. ``hits`` are the passages that the tool read from."""

    text: str = ""
    error: str = ""
    hits: tuple[Hit, ...] = ()


_read: ContextVar[list[Hit] | None] = ContextVar("graft_tool_hits", default=None)


def cite(hits: Iterable[Hit]) -> None:
    """Say from inside a tool that its result comes from ``hits``; they become sources of the answer."""
    read = _read.get()
    if read is not None:
        read.extend(hits)


async def call_tool(tool: Tool, arguments: Mapping[str, Any], *, timeout: float = 10.0, limit: int = 4000) -> ToolResult:
    """Call ``tool`` and return what it gave; never raises for what the tool does.

    ``arguments`` are checked against its schema. A call ends after ``timeout`` seconds and its text is cut to ``limit`` characters, with a
    remark in it. Counts ``tool_calls`` (and ``tool_errors``) and emits `ToolCalled`. The text is foreign: whoever puts it into a prompt
    cleans it first.
    """
    hits: list[Hit] = []
    token = _read.set(hits)
    try:
        check_arguments(tool.schema, arguments, tool.name)
        text, error = _cut(await _bounded(tool, arguments, timeout), limit), ""
    except GraftError as reason:
        text, error = "", str(reason)
    except Exception as reason:
        text, error = "", f"{tool.name} failed: {type(reason).__name__}: {reason}"
    finally:
        _read.reset(token)
    error = " ".join(error.split())[:_LONGEST_ERROR]
    _record(tool.name, arguments, text, error)
    return ToolResult(text, error, () if error else tuple(hits))


async def _bounded(tool: Tool, arguments: Mapping[str, Any], timeout: float) -> str:
    """Wait for the tool no longer than ``timeout``, even if it ignores being cancelled."""
    with undertone():  # what a model writes inside a tool is not the answer
        task = asyncio.ensure_future(tool.acall(arguments))
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # a late failure has nobody left to tell
    try:
        await asyncio.wait({task}, timeout=timeout)
    finally:
        if not task.done():
            task.cancel()
    if not task.done() or task.cancelled():
        raise RunError(f"{tool.name} took longer than {timeout:g} s" if not task.done() else f"{tool.name} was cancelled")
    text = task.result()
    if not isinstance(text, str):
        raise RunError(f"{tool.name} must return text, not {type(text).__name__}")
    return text


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … (cut at {limit:,} of {len(text):,} characters)"


def _record(name: str, arguments: Mapping[str, Any], text: str, error: str) -> None:
    written = shown(arguments)
    count(tool_calls=1)
    if error:
        count(tool_errors=1)
    emit(ToolCalled(name, written, text, error))
    note(f"{name}({written[:80]}) " + (f"failed: {error}" if error else f"-> {text[:80]}"))


def shown(arguments: Mapping[str, Any]) -> str:
    """``arguments`` for people: the value if there is just one, else JSON."""
    if not arguments:
        return ""
    value = next(iter(arguments.values())) if len(arguments) == 1 else dict(arguments)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def check_tools(tools: Sequence[Tool], where: str) -> dict[str, Tool]:
    """``tools`` by name. Raises `InputError` if something is no tool, or if a name is no identifier or stands twice."""
    named: dict[str, Tool] = {}
    for tool in tools:
        if not isinstance(tool, Tool):
            raise InputError(
                f"{where}: {tool!r} is no tool; it needs name, description, schema and acall (see FunctionTool for a function)"
            )
        if not isinstance(tool.name, str) or not tool.name.isidentifier():
            raise InputError(f"{where}: a tool is called {tool.name!r}; use letters, digits and '_', not starting with a digit")
        if tool.name in named:
            raise InputError(f"{where}: two tools are called '{tool.name}'; give each its own name")
        named[tool.name] = tool
    return named


async def gather_tools(sources: Sequence[Tool | Toolbox], where: str) -> dict[str, Tool]:
    """All tools of ``sources`` by name, those of toolboxes asked for now. Raises as `check_tools`."""
    tools: list[Tool] = []
    for source in sources:
        tools += await source.atools() if isinstance(source, Toolbox) else [source]
    return check_tools(tools, where)
