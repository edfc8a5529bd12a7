"""A pipeline as an MCP server, asked by the SDK's own client: within the process, and through `rag mcp` over pipes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.serve.mcp import create_mcp_server
from tests.rag.serve.parts import TEXT, OneShelf, Scripted, pipeline

mcp = pytest.importorskip("mcp", reason="the extra 'mcp' is not installed")


class Alone:
    """A pipeline's only node, without a retriever."""

    def run(self, question: str) -> str:
        return f"You asked: {question}"


def asked(pipe: Pipeline, tool: str, arguments: dict[str, Any], mode: str = "auto") -> Any:
    async def ask() -> Any:
        async with mcp.Client(create_mcp_server(pipe), mode=mode) as client:
            return await client.call_tool(tool, arguments)

    return asyncio.run(ask())


def listed(pipe: Pipeline, **options: Any) -> Any:
    async def ask() -> Any:
        async with mcp.Client(create_mcp_server(pipe, **options)) as client:
            assert client.server_info.name == options.get("name", "graft")
            return (await client.list_tools()).tools

    return asyncio.run(ask())


def test_its_tools_say_what_they_take() -> None:
    ask, search = listed(pipeline(), name="handbook", description="the station's handbook")
    assert (ask.name, search.name) == ("ask", "search")
    assert "the station's handbook" in ask.description
    assert "the station's handbook" in search.description
    assert ask.input_schema["required"] == ["question"]
    assert search.input_schema["properties"]["k"]["maximum"] == 100
    assert ask.annotations.read_only_hint is True


def test_without_a_retriever_there_is_nothing_to_search() -> None:
    assert [tool.name for tool in listed(Pipeline().add("only", Alone()))] == ["ask"]


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_answer_has_its_sources_as_text_and_as_data(mode: str) -> None:
    result = asked(pipeline(), "ask", {"question": "How long?"}, mode)
    assert not result.is_error
    assert result.content[0].text.startswith(TEXT)
    assert "[1] Suits (safety/suits.md)" in result.content[0].text
    assert result.structured_content["answer"] == TEXT
    assert result.structured_content["sources"][0]["document"] == "safety/suits.md"
    assert result.structured_content["citations"][0]["number"] == 1


def test_a_pipeline_that_ends_in_plain_text_answers_too() -> None:
    result = asked(Pipeline().add("only", Alone()), "ask", {"question": " Why? "})
    assert (result.content[0].text, result.structured_content["sources"]) == ("You asked: Why?", [])


def test_search_gives_the_passages() -> None:
    result = asked(pipeline(), "search", {"query": "suit", "k": 3})
    assert result.content[0].text == "[1] Suits\nA suit may be worn outside for 90 minutes."
    assert result.structured_content["hits"][0]["id"] == "safety/suits.md:0"


@pytest.mark.parametrize(
    ("tool", "arguments", "reason"),
    [
        ("ask", {}, "question"),
        ("ask", {"question": "  "}, "question is empty"),
        ("ask", {"question": 5}, "question"),
        ("ask", {"question": "why", "temperature": 2}, "temperature"),
        ("ask", {"question": "x" * 30_000}, "at most 20,000"),
        ("search", {"query": "suit", "k": 0}, "k"),
        ("search", {"query": "suit", "k": 10**9}, "k"),
        ("delete", {}, "there is no tool 'delete'; there are: ask, search"),
    ],
)
def test_bad_arguments_are_errors_that_say_why(tool: str, arguments: dict[str, Any], reason: str) -> None:
    result = asked(pipeline(), tool, arguments)
    assert result.is_error
    assert reason in result.content[0].text


def test_what_went_wrong_inside_stays_inside(caplog: pytest.LogCaptureFixture) -> None:
    secret = "http://10.0.0.7:8000/v1 is down"
    result = asked(pipeline(Scripted(error=ModelUnavailable(secret))), "ask", {"question": "How long?"})
    assert result.is_error
    assert "the language model does not answer" in result.content[0].text
    assert "10.0.0.7" not in str(result)
    assert "10.0.0.7" in caplog.text


def test_a_crash_of_a_node_does_not_end_the_server() -> None:
    async def ask() -> tuple[Any, Any]:
        pipe = pipeline(shelf=OneShelf(error=ZeroDivisionError("/home/me/secret.py")))  # type: ignore[arg-type]
        async with mcp.Client(create_mcp_server(pipe)) as client:
            return await client.call_tool("search", {"query": "suit"}), await client.list_tools()

    failed, tools = asyncio.run(ask())
    assert failed.is_error
    assert "secret.py" not in str(failed)
    assert len(tools.tools) == 2


def test_rag_mcp_speaks_over_pipes(tmp_path: Path) -> None:
    """The whole command, as a client starts it."""
    from typer.testing import CliRunner

    from rag.cli.main import app

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "suits.md").write_text("# Suits\n\nA suit may be worn outside for 90 minutes.\n")
    out = tmp_path / "shelf"
    assert CliRunner().invoke(app, ["index", str(tmp_path / "docs"), "--out", str(out), "--encoder", "none"]).exit_code == 0
    (tmp_path / "pipe.yaml").write_text(f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {out}}}}}\n")

    async def ask() -> Any:
        arguments = ["-m", "rag.cli.main", "mcp", "--pipeline", str(tmp_path / "pipe.yaml"), "--name", "suits"]
        command = mcp.StdioServerParameters(command=sys.executable, args=arguments, env={"PYTHONPATH": str(Path.cwd())})
        async with mcp.Client(command, read_timeout_seconds=60) as client:
            assert client.server_info.name == "suits"
            assert [tool.name for tool in (await client.list_tools()).tools] == ["ask"]
            return await client.call_tool("ask", {"question": "How long may a suit be worn?"})

    assert "90 minutes" in asyncio.run(ask()).content[0].text


def test_rag_mcp_says_what_it_lacks(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from rag.cli.main import app

    nothing = CliRunner().invoke(app, ["mcp"])
    assert (nothing.exit_code, "--corpus FOLDER" in nothing.stderr) == (2, True)
    both = CliRunner().invoke(app, ["mcp", "--pipeline", "p.yaml", "--corpus", "c"])
    assert (both.exit_code, "--corpus" in both.stderr) == (2, True)
    (tmp_path / "p.yaml").write_text(f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {tmp_path / 'nowhere'}}}}}\n")
    missing = CliRunner().invoke(app, ["mcp", "--pipeline", str(tmp_path / "p.yaml")])
    assert (missing.exit_code, "there is no corpus here" in missing.stderr) == (2, True)


def test_a_corpus_is_served_and_searched_for_more_than_the_model_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    import rag.cli.mcp
    from rag.cli.main import app

    (tmp_path / "docs").mkdir()
    for name in ("suits", "travel"):
        (tmp_path / "docs" / f"{name}.md").write_text(f"# {name}\n\nIt takes 90 minutes.\n")
    out = tmp_path / "shelf"
    assert CliRunner().invoke(app, ["index", str(tmp_path / "docs"), "--out", str(out), "--encoder", "none"]).exit_code == 0
    served: list[Any] = []

    async def serve(server: Any, pipe: Pipeline, search: Any) -> None:
        async with mcp.Client(server) as client:
            served.append(await client.call_tool("ask", {"question": "How many minutes?"}))
            served.append(await client.call_tool("search", {"query": "minutes", "k": 9}))

    monkeypatch.setattr(rag.cli.mcp, "make_model", lambda *_: Scripted())
    monkeypatch.setattr(rag.cli.mcp, "_serve", serve)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    result = CliRunner().invoke(app, ["mcp", "--corpus", str(out), "-k", "1"])
    assert result.exit_code == 0, result.output
    answer, found = served
    assert len(answer.structured_content["sources"]) == 1
    assert len(found.structured_content["hits"]) == 2


def test_without_the_sdk_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from rag.core.errors import MissingDependency

    monkeypatch.setitem(sys.modules, "mcp.server", None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[mcp\]"):
        create_mcp_server(pipeline())
