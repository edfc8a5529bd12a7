from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rag.core.errors import ConfigError, InputError, MissingDependency, RunError
from rag.core.registry import configuration, registered
from rag.core.sync import run_sync
from tools.mcp import MCPTool, MCPTools
from tools.tool import Tool, Toolbox, ToolResult, call_tool, gather_tools

pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")

T = TypeVar("T")
SERVER = [sys.executable, str(Path(__file__).with_name("server.py"))]


@pytest.fixture(scope="module")
def box() -> Iterator[MCPTools]:
    """One running server for all tests that leave it as it was."""
    box = MCPTools(SERVER, timeout=60)
    yield box
    run_sync(box.aclose())


def called(box: MCPTools, tool: str, **arguments: Any) -> ToolResult:
    async def call() -> ToolResult:
        tools = await gather_tools([box], "test")
        return await call_tool(tools[tool], arguments, timeout=90)

    return asyncio.run(call())


def with_box(work: Callable[[MCPTools], Awaitable[T]], *more: str, **options: Any) -> T:
    async def run() -> T:
        box = MCPTools([*SERVER, *more], **options)
        try:
            return await work(box)
        finally:
            await box.aclose()

    return asyncio.run(run())


def test_its_tools_are_tools(box: MCPTools) -> None:
    assert isinstance(box, Toolbox)
    tools = run_sync(box.atools())
    assert [tool.name for tool in tools] == ["say_again", "environment", "refuse", "hang", "crash", "picture", "figures", "two", "tangled"]
    assert all(isinstance(tool, Tool) for tool in tools)
    assert tools[0].description == "Say it again."
    assert tools[0].schema["required"] == ["text"]


def test_a_call_from_any_loop_reaches_one_server(box: MCPTools) -> None:
    assert called(box, "say_again", text="ha", times=3).text == "hahaha"  # a loop of its own
    tool = run_sync(box.atools())[0]
    assert run_sync(tool.acall({"text": "ho"})) == "ho"  # the shared loop


@pytest.mark.parametrize(("tool", "text"), [("two", "one\ntwo"), ("figures", '{"n":3}'), ("picture", "[image, left out]")])
def test_what_it_answers_becomes_text(box: MCPTools, tool: str, text: str) -> None:
    assert called(box, tool).text == text


def test_a_refusal_is_an_error_with_its_reason(box: MCPTools) -> None:
    result = called(box, "refuse")
    assert (result.text, "not on a Sunday" in result.error) == ("", True)


def test_a_long_answer_is_cut(box: MCPTools) -> None:
    text = run_sync(box.acall("say.again", {"text": "x", "times": 1_500_000}))
    assert text.endswith("x\n[cut after 1,000,000 characters]")
    assert len(called(box, "say_again", text="x", times=1_500_000).text) < 4_100


def test_bad_arguments_never_reach_the_server(box: MCPTools) -> None:
    assert "text" in called(box, "say_again", times=2).error


def test_a_schema_made_to_be_checked_for_ever_is_checked_at_once(box: MCPTools) -> None:
    assert called(box, "tangled", value="x").text == "taken"


def test_only_takes_what_it_names(box: MCPTools) -> None:
    async def names(box: MCPTools) -> list[str]:
        return [tool.name for tool in await box.atools()]

    assert with_box(names, only=["two"], timeout=60) == ["two"]
    with pytest.raises(RunError, match=r"offers no tool 'three'; it offers: say\.again, "):
        with_box(names, only=["three"], timeout=60)


def test_the_program_gets_no_variables_but_those_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "s")
    monkeypatch.setenv("MY_OTHER_SECRET", "s")

    async def environment(box: MCPTools) -> list[str]:
        return (await box.acall("environment", {})).split(",")

    seen = with_box(environment, pass_env=["MY_SECRET"], timeout=60)
    assert ("MY_SECRET" in seen, "MY_OTHER_SECRET" in seen) == (True, False)


def test_a_server_that_dies_in_a_call_says_so_and_is_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STARTS", str(tmp_path / "starts"))

    async def crash(box: MCPTools) -> tuple[ToolResult, ToolResult]:
        tools = await gather_tools([box], "test")
        return await call_tool(tools["crash"], {}, timeout=90), await call_tool(tools["two"], {}, timeout=90)

    crashed, after = with_box(crash, timeout=60, pass_env=["STARTS"])
    assert "it ended, or closed the connection (it said: out of memory)" in crashed.error
    assert after.text == "one\ntwo"
    assert (tmp_path / "starts").read_text() == "started\n" * 2


def test_a_server_that_dies_at_the_start_is_an_error_with_its_last_words() -> None:
    with pytest.raises(RunError, match=r"it ended, or closed the connection \(it said: cannot find my database\)"):
        with_box(lambda box: box.atools(), "dies", timeout=60)


@pytest.mark.parametrize("how", ["silent", "chatter"])
def test_a_server_that_does_not_answer_is_given_up(how: str) -> None:
    with pytest.raises(RunError, match=r"did not answer within 1 seconds"):
        with_box(lambda box: box.atools(), how, timeout=1)


def test_a_tool_that_hangs_is_given_up() -> None:
    async def hang(box: MCPTools) -> str:
        await box.atools()
        box.timeout = 0.5
        return await box.acall("hang", {})

    with pytest.raises(RunError, match=r"did not answer within 0\.5 seconds"):
        with_box(hang, timeout=60)


def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(RunError, match="the MCP server /no/such/program: there is no such program"):
        asyncio.run(MCPTools(["/no/such/program"]).atools())


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("npx server; rm -rf /", "no shell"),
        ([], "list of texts"),
        (["python", ""], "list of texts"),
        (["python\x00"], "list of texts"),
        ([3], "list of texts"),
        ("http://example.com/mcp", "https"),
        ("https://127.0.0.1/mcp", "not a public address"),
        ("https://169.254.169.254/mcp", "not a public address"),
        ("https://me:secret@example.com/mcp", "user or password"),
    ],
)
def test_a_bad_server_is_refused_when_it_is_named(server: Any, reason: str) -> None:
    with pytest.raises(InputError, match=reason) as raised:
        MCPTools(server)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": "10"}, {"only": "two"}, {"pass_env": "PATH"}, {"pass_env": ["A=b"]}, {"api_key_env": "sk-123"}]
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="MCPTools") as raised:
        MCPTools(SERVER, **options)
    assert "sk-123" not in str(raised.value)


def test_a_name_that_leads_to_a_private_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["10.0.0.7"]

    monkeypatch.setattr("tools.network.lookup", resolve)
    with pytest.raises(InputError, match=r"'mcp\.example\.com' is at 10\.0\.0\.7, which is not a public address"):
        asyncio.run(MCPTools("https://mcp.example.com/mcp").atools())


def test_a_key_that_is_not_set_is_named() -> None:
    box = MCPTools("https://127.0.0.1:9/mcp", api_key_env="NO_SUCH_KEY_HERE", allow_private=True)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY_HERE"):
        asyncio.run(box.atools())


def test_it_goes_into_a_pipeline_file_and_does_nothing_before_it_is_asked() -> None:
    box = MCPTools(["/no/such/program"], only=["a"], timeout=3.0, pass_env=["KEY"], allow_private=True)
    assert registered("MCPTools") is MCPTools
    assert configuration(box) == {
        "server": ["/no/such/program"],
        "only": ["a"],
        "timeout": 3.0,
        "pass_env": ["KEY"],
        "allow_private": True,
    }


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[mcp\]"):
        asyncio.run(MCPTools(SERVER).atools())


def test_a_served_url_offers_its_tools_too(free_server: str) -> None:
    async def ask() -> tuple[list[MCPTool], str]:
        box = MCPTools(free_server, timeout=30, allow_private=True)
        try:
            return await box.atools(), await box.acall("say.again", {"text": "ha", "times": 2})
        finally:
            await box.aclose()

    tools, text = asyncio.run(ask())
    assert (tools[0].name, text) == ("say_again", "haha")


def test_a_served_answer_without_end_is_given_up(free_server: str) -> None:
    async def ask() -> str:
        box = MCPTools(free_server, timeout=30, allow_private=True)
        try:
            with pytest.raises(RunError, match="the MCP server http://127"):
                await box.acall("say.again", {"text": "x", "times": 9_000_000})
            return await box.acall("two", {})  # and the next call is answered
        finally:
            await box.aclose()

    assert asyncio.run(ask()) == "one\ntwo"


def test_a_url_that_nobody_serves_is_an_error() -> None:
    with pytest.raises(RunError, match=r"the MCP server http://127\.0\.0\.1:9/mcp: ConnectError"):
        asyncio.run(MCPTools("http://127.0.0.1:9/mcp", allow_private=True).atools())


@pytest.fixture(scope="module")
def free_server() -> Iterator[str]:
    """The test server over streamable HTTP, on a free port."""
    import socket
    import threading
    import time

    import uvicorn

    from tests.tools.mcp.server import server

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = uvicorn.Server(uvicorn.Config(server.streamable_http_app(), port=port, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started and thread.is_alive():
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}/mcp"
    running.should_exit = True
    thread.join()
