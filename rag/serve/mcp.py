"""A pipeline as an MCP server: the tool ``ask`` and, where the pipeline has a retriever, the tool ``search``."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag import __version__
from rag.core.errors import MissingDependency
from rag.core.pipeline import Pipeline
from rag.core.protocols import Retriever
from rag.serve.describe import as_answer, describe_answer, describe_hit
from rag.serve.errors import RequestError, to_request_error
from rag.serve.inspection import retriever_of
from rag.serve.openai_types import MAX_K, checked_text

if TYPE_CHECKING:
    from mcp.server import Server
    from mcp.types import CallToolResult


class AskArguments(BaseModel):
    """What ``ask`` takes."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(description="The question, in any language the documents are in.")


class SearchArguments(BaseModel):
    """What ``search`` takes."""

    model_config = ConfigDict(extra="forbid")
    query: str = Field(description="What to look for.")
    k: int = Field(5, ge=1, le=MAX_K, description="How many passages at most.")


@dataclass(frozen=True, slots=True)
class _Offered:
    """A tool: its arguments, and what it does with them: (text, data)."""

    description: str
    arguments: type[BaseModel]
    call: Callable[[Any], Awaitable[tuple[str, dict[str, Any]]]]


def create_mcp_server(
    pipeline: Pipeline, *, retriever: Retriever | None = None, name: str = "graft", description: str = "a collection of documents"
) -> Server[Any]:
    """The SDK's server over ``pipeline``; ``retriever`` answers ``search`` in place of the pipeline's own.

    ``name`` is the server's; ``description`` ends the sentence "Answers a question from …" that a model reads. A failure becomes a result
    with ``isError``: what the caller did wrong is told, what went wrong inside goes to the log, without paths or addresses. Raises
    `MissingDependency` without the extra "mcp" and `GraphError` if the pipeline is not complete.
    """
    try:
        from mcp.server import Server
        from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations
    except ImportError as error:
        raise MissingDependency(f"an MCP server needs the MCP SDK ({error}): pip install 'graft-rag[mcp]'") from error
    _ = pipeline.plan  # an incomplete graph fails now, not at the first question
    tools = _tools(pipeline, retriever or retriever_of(pipeline), description)

    async def list_tools(context: Any, params: Any) -> ListToolsResult:
        hints = ToolAnnotations(read_only_hint=True, open_world_hint=False)
        return ListToolsResult(
            tools=[
                Tool(name=called, description=tool.description, input_schema=tool.arguments.model_json_schema(), annotations=hints)
                for called, tool in tools.items()
            ]
        )

    async def call_tool(context: Any, params: Any) -> CallToolResult:
        try:
            text, data = await _call(tools, params.name, params.arguments or {})
        except Exception as error:
            return CallToolResult(content=[TextContent(text=to_request_error(error).message)], is_error=True)
        return CallToolResult(content=[TextContent(text=text)], structured_content=data)

    return Server(name, version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def _tools(pipeline: Pipeline, retriever: Retriever | None, description: str) -> dict[str, _Offered]:
    async def ask(asked: AskArguments) -> tuple[str, dict[str, Any]]:
        answer = as_answer((await pipeline.aexplain(checked_text(asked.question, "question"))).value)
        return str(answer), _plain({"answer": answer.text, **describe_answer(answer)})

    tools = {"ask": _Offered(f"Answers a question from {description}, with the sources it was read from.", AskArguments, ask)}
    if retriever is None:
        return tools

    async def search(asked: SearchArguments) -> tuple[str, dict[str, Any]]:
        hits = await retriever.asearch(checked_text(asked.query, "query"), k=asked.k)
        found = [describe_hit(hit, number) for number, hit in enumerate(hits, 1)]
        text = "\n\n".join(f"[{one['number']}] {one['title'] or one['document']}\n{one['text']}" for one in found)
        return text or "nothing found", _plain({"hits": found})

    tools["search"] = _Offered(f"Finds passages in {description}.", SearchArguments, search)
    return tools


async def _call(tools: Mapping[str, _Offered], name: str, arguments: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    tool = tools.get(name)
    if tool is None:
        raise RequestError(404, f"there is no tool '{name}'; there are: {', '.join(tools)}")
    try:
        asked = tool.arguments.model_validate(arguments, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "arguments"
        raise RequestError(400, f"{place}: {first['msg']}; {name} takes: {', '.join(tool.arguments.model_fields)}") from None
    return await tool.call(asked)


def _plain(data: dict[str, Any]) -> dict[str, Any]:
    """``data`` as JSON has it: metadata may hold numbers that JSON does not know."""
    plain: dict[str, Any] = json.loads(json.dumps(data, ensure_ascii=False, default=str), parse_constant=str)
    return plain
