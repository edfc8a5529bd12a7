"""The tools of an MCP server (Model Context Protocol), over a program's stdin and stdout or over streamable HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from rag.core.errors import ConfigError, GraftError, InputError, MissingDependency, RunError
from rag.core.registry import component
from rag.core.sync import background_loop
from rag.core.trace import note
from tools.mcp.held import Held
from tools.mcp.output import LastWords
from tools.network import Pinned, acheck_public, check_address
from tools.schema import written_out

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult
    from mcp.types import Tool as Listed

T = TypeVar("T")

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CLOSED = -32000  # the SDK's code for a connection that is gone
_MAX_PAGES = 20
_MAX_TOOLS = 500
_MAX_DESCRIPTION = 1_000
_MAX_TEXT = 1_000_000
_MAX_ANSWER = 8_000_000  # bytes of an answer over HTTP, as they come over the wire
_MAX_ERROR = 300


@component
class MCPTools:
    """A source of tools: those that an MCP server offers.

    ``server`` is the server's program with its arguments, as a list (no shell reads it), or its https:// URL. The program starts, or the
    URL is asked, when tools are first wanted; one that ended is started again at the next call. ``only`` names the tools to take, None
    all. ``timeout`` in seconds bounds the start and each call. ``pass_env`` names environment variables that the program gets besides
    the harmless ones (PATH, HOME, …). ``api_key_env`` names the variable with the bearer token for a URL. ``allow_private`` lets a URL
    lead to an address that is not public, and be plain http.

    What the server asks of its client (to write with the model, to ask the user, to see folders) is refused. Raises `InputError` for a
    bad argument and `MissingDependency` without the extra "mcp".
    """

    def __init__(
        self,
        server: Sequence[str] | str,
        only: Collection[str] | None = None,
        timeout: float = 10.0,
        pass_env: Sequence[str] = (),
        api_key_env: str | None = None,
        allow_private: bool = False,
    ) -> None:
        _check_server(server, allow_private)
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
            raise InputError(f"MCPTools: timeout is a number of seconds above 0, not {timeout!r}")
        if isinstance(only, str) or isinstance(pass_env, str):
            raise InputError("MCPTools: only and pass_env are lists of names")
        for name in (*pass_env, *((api_key_env,) if api_key_env is not None else ())):
            if not _ENVIRONMENT_NAME.fullmatch(name):
                raise InputError("MCPTools: pass_env and api_key_env hold names of environment variables, never their values")
        self.server = server
        self.only = only
        self.timeout = timeout
        self.pass_env = pass_env
        self.api_key_env = api_key_env
        self.allow_private = allow_private
        self._words = LastWords()
        self._held: Held[Client] = Held(self._open, timeout)

    def __repr__(self) -> str:
        return f"MCPTools({self._where()})"

    async def atools(self) -> list[MCPTool]:
        """The tools that the server offers now. Raises `RunError` if it does not start, answer or offer what ``only`` names."""
        listed = await self._asked(self._list())
        offered = {tool.name: tool for tool in listed}
        for name in self.only or ():
            if name not in offered:
                raise RunError(f"{self._where()} offers no tool '{name}'; it offers: {', '.join(offered) or 'none'}")
        return [MCPTool(self, tool) for tool in listed if self.only is None or tool.name in self.only]

    async def acall(self, tool: str, arguments: Mapping[str, Any]) -> str:
        """What the server's ``tool`` answers, its texts joined. Raises `RunError` if it fails, or the server does."""
        return _text(await self._asked(self._call(tool, dict(arguments))), f"{tool} of {self._where()}")

    async def aclose(self) -> None:
        """End the session, and with it the program."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._held.close(), background_loop()))

    async def _asked(self, work: Coroutine[Any, Any, T]) -> T:
        """Do ``work`` on the loop that the session belongs to, wherever the caller runs, and put every failure into words."""
        try:
            return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, background_loop()))
        except GraftError:
            raise
        except TimeoutError:
            raise RunError(f"{self._where()} did not answer within {self.timeout:g} seconds{self._words.told()}") from None
        except Exception as error:
            raise RunError(f"{self._where()}: {_reason(error)}{self._words.told()}") from None

    async def _list(self) -> list[Listed]:
        client = await self._held.get()
        tools: list[Listed] = []
        cursor = None
        for _ in range(_MAX_PAGES):
            async with self._watched(client):
                page = await client.list_tools(cursor=cursor)
            tools += page.tools
            cursor = page.next_cursor
            if cursor is None and len(tools) <= _MAX_TOOLS:
                return tools
        raise RunError(f"{self._where()} offers more than {_MAX_TOOLS} tools, or a list without end")

    async def _call(self, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        client = await self._held.get()
        async with self._watched(client):
            return await client.call_tool(tool, arguments)

    @asynccontextmanager
    async def _watched(self, client: Client) -> AsyncIterator[None]:
        """Bound the time, and forget a session that is lost, so that the next call starts another."""
        import anyio
        from mcp import MCPError

        try:
            async with asyncio.timeout(self.timeout):
                yield
        except (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            if getattr(error, "code", _CLOSED) == _CLOSED:
                self._held.forget(client)
            raise

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Client]:
        _sdk()
        from mcp import Client

        transport = self._over_http() if isinstance(self.server, str) else self._over_pipes()
        async with Client(transport, read_timeout_seconds=self.timeout, cache=None) as client:
            yield client

    @asynccontextmanager
    async def _over_pipes(self) -> AsyncIterator[Any]:
        from mcp import StdioServerParameters, stdio_client

        command, *arguments = list(self.server)
        passed = {name: os.environ[name] for name in self.pass_env if name in os.environ}
        with self._words.heard() as stderr:
            async with stdio_client(StdioServerParameters(command=command, args=arguments, env=passed), errlog=stderr) as streams:
                yield streams

    @asynccontextmanager
    async def _over_http(self) -> AsyncIterator[Any]:
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        from tools.mcp.bounded import Bounded

        url = str(self.server)
        if not self.allow_private:
            await acheck_public(url)  # the transport checks again; here the reason reaches the caller
        network: Any = httpx2.AsyncHTTPTransport()
        transport = Bounded(network if self.allow_private else Pinned(network), _MAX_ANSWER)
        headers = {"Authorization": f"Bearer {self._key()}"} if self.api_key_env else {}
        async with (
            httpx2.AsyncClient(transport=transport, headers=headers, timeout=self.timeout, trust_env=False) as http,
            streamable_http_client(url, http_client=http) as streams,
        ):
            yield streams

    def _key(self) -> str:
        key = os.environ.get(self.api_key_env or "", "").strip()
        if not key or not (key.isascii() and key.isprintable()):
            raise ConfigError(
                f"the environment variable {self.api_key_env}, which should hold the token for {self._where()}, is not set or no token"
            )
        return key

    def _where(self) -> str:
        return f"the MCP server {self.server.partition('?')[0] if isinstance(self.server, str) else self.server[0]}"


class MCPTool:
    """One tool of an MCP server. ``name`` is an identifier; the server's own name may hold more."""

    def __init__(self, source: MCPTools, listed: Listed) -> None:
        self._source = source
        self._own_name = listed.name
        self.name = re.sub(r"\W", "_", listed.name if listed.name[:1].isalpha() else f"_{listed.name}")
        self.description = (listed.description or listed.title or listed.name)[:_MAX_DESCRIPTION]
        self.schema: Mapping[str, Any] = _plain(listed.input_schema)

    def __repr__(self) -> str:
        return f"MCPTool({self.name})"

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """What the tool answers, as text. Raises `RunError` if it or its server fails."""
        return await self._source.acall(self._own_name, arguments)


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """``schema`` without references; one that cannot be written out leaves the check to the server."""
    try:
        return written_out(schema, schema)
    except InputError as error:
        note(f"an MCP tool's schema is not used: {error}")
        return {"type": "object", "additionalProperties": True}


def _check_server(server: Sequence[str] | str, allow_private: bool) -> None:
    if isinstance(server, str):
        if "://" not in server:
            raise InputError(
                f"MCPTools: give the program as a list, such as {server.split()!r}, or an https:// URL; no shell reads a command"
            )
        if not server.startswith("https://") and not allow_private:
            raise InputError("MCPTools: give an https:// URL; plain http is for a server of your own, with allow_private")
        check_address(server, allow_private=allow_private)
    elif not server or not all(isinstance(part, str) and part and "\x00" not in part for part in server):
        raise InputError(
            "MCPTools: the program and its arguments are a list of texts that are not empty, such as ['python', '-m', 'my_server']"
        )


def _text(result: CallToolResult, where: str) -> str:
    parts = [_part(block) for block in result.content]
    text = "\n".join(parts)
    if not text and result.structured_content is not None:
        text = json.dumps(result.structured_content, ensure_ascii=False, separators=(",", ":"))
    if result.is_error:
        raise RunError(f"{where} failed: {' '.join(text.split())[:_MAX_ERROR] or 'no reason given'}")
    if len(text) > _MAX_TEXT:
        return f"{text[:_MAX_TEXT]}\n[cut after {_MAX_TEXT:,} characters]"
    return text or "(no content)"


def _part(block: Any) -> str:
    text = getattr(block, "text", None) or getattr(getattr(block, "resource", None), "text", None)
    return text if isinstance(text, str) else f"[{block.type}, left out]"


def _reason(error: BaseException) -> str:
    """The first leaf of the SDK's groups of errors, in few words."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, FileNotFoundError):
        return "there is no such program"
    if getattr(error, "code", None) == _CLOSED:
        return "it ended, or closed the connection"
    return f"{type(error).__name__}: {error}"[:_MAX_ERROR]


def _sdk() -> None:
    try:
        import mcp  # noqa: F401
    except ImportError as error:
        raise MissingDependency(f"MCP needs its SDK ({error}): pip install 'graft-rag[mcp]'") from error
