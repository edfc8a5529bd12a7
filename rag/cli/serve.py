"""``rag serve``: a pipeline behind an OpenAI-compatible address."""

from __future__ import annotations

import ipaddress
import os
from pathlib import Path
from typing import Annotated

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
from rag.core.errors import ConfigError, MissingDependency

_DRAIN = 25
"""Seconds that running requests may take after SIGTERM."""


def serve(
    pipeline: Annotated[Path | None, typer.Argument(help="Pipeline file (YAML); or give --corpus.", show_default=False)] = None,
    corpus: CorpusOption = None,
    engine: EngineOption = None,
    url: UrlOption = None,
    model: ModelOption = None,
    model_key_env: KeyOption = None,
    k: KOption = None,
    retriever: RetrieverOption = None,
    max_tokens: MaxTokensOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    api_key_env: Annotated[
        str | None, typer.Option(help="Environment variable with the key that callers must send.", show_default=False)
    ] = None,
) -> None:
    """Serve OpenAI's chat completions from a corpus or a pipeline file, as the model "graft".

    Example:  rag serve --corpus handbook --port 8080
    """
    try:
        import uvicorn

        from rag.serve.app import Limits, create_app
    except ImportError as error:
        raise MissingDependency(f"serving needs FastAPI and uvicorn ({error}): pip install 'graft-rag[serve]'") from error
    key = _key(api_key_env)
    if pipeline is not None:
        refuse_with_pipeline(
            corpus=corpus, engine=engine, url=url, model=model, model_key_env=model_key_env, k=k, retriever=retriever, max_tokens=max_tokens
        )
        pipe, search = from_file(pipeline)
    elif corpus is not None:
        pipe, search = over_corpus(corpus, make_model(engine, url, model, model_key_env), retriever, k, max_tokens)
    else:
        raise ConfigError("name what to serve: a pipeline file, or --corpus FOLDER (from `rag index`)")
    if key is None and not _is_loopback(host):
        typer.echo(f"warning: anyone who reaches {host}:{port} may ask; set --api-key-env NAME", err=True)
    app = create_app(pipe, retriever=search, api_key=key, limits=Limits(drain=_DRAIN))
    # Bodies are read by the routes under their own limit and time; uvicorn's part is the connection.
    uvicorn.run(
        app,
        host=host,
        port=port,
        timeout_graceful_shutdown=_DRAIN + 5,
        log_level="info",
        server_header=False,
        h11_max_incomplete_event_size=65_536,
    )


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"--api-key-env {name}: there is no such environment variable, or it is empty; set it to the key that callers send"
        )
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
