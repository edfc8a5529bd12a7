"""``rag mcp``: a pipeline as a tool for other programs' models."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag.cli.options import (
    CorpusOption,
    EngineOption,
    KeyOption,
    KOption,
    MaxTokensOption,
    ModelOption,
    RetrieverOption,
    UrlOption,
    make_model,
    refuse_with_pipeline,
)
from rag.cli.served import from_file, over_corpus
from rag.core.errors import ConfigError

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline
    from rag.core.protocols import Retriever


def mcp(
    pipeline: Annotated[Path | None, typer.Option(help="Pipeline file to serve instead of the default one.", show_default=False)] = None,
    corpus: CorpusOption = None,
    engine: EngineOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    model_key_env: KeyOption = None,
    k: KOption = None,
    retriever: RetrieverOption = None,
    max_tokens: MaxTokensOption = None,
    name: Annotated[str, typer.Option(help="What the server is called.")] = "graft",
    description: Annotated[
        str, typer.Option(help="What the documents are, for the model that chooses a tool.")
    ] = "a collection of documents",
) -> None:
    """Serve a corpus or a pipeline file as an MCP server on stdin and stdout, for an assistant or an agent.

    Example:  rag mcp --corpus handbook --description "the station's handbook"
    """
    from rag.serve.mcp import create_mcp_server

    if pipeline is not None:
        refuse_with_pipeline(
            corpus=corpus, engine=engine, url=url, model=model, model_key_env=model_key_env, k=k, retriever=retriever, max_tokens=max_tokens
        )
        pipe, search = from_file(pipeline)
    elif corpus is not None:
        pipe, search = over_corpus(corpus, make_model(engine, url, model, model_key_env), retriever, k, max_tokens)
    else:
        raise ConfigError("name what to serve: --corpus FOLDER (from `rag index`) or --pipeline FILE")
    server = create_mcp_server(pipe, retriever=search, name=name, description=description)
    if sys.stdin.isatty():
        typer.echo("an MCP client starts this command and speaks to it; Ctrl-C ends", err=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a thread waits for stdin, which an orderly end would wait for in turn
    asyncio.run(_serve(server, pipe, search))


async def _serve(server: Any, pipe: Pipeline, search: Retriever | None) -> None:
    from mcp.server.stdio import stdio_server

    from rag.serve.health import Health
    from rag.serve.inspection import retriever_of

    warming = asyncio.create_task(Health({"graft": pipe}).warm(search or retriever_of(pipe)))
    async with stdio_server() as (read, write):  # what else prints goes to stderr meanwhile
        await server.run(read, write, server.create_initialization_options())
    warming.cancel()
