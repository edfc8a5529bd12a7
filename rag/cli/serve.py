"""``rag serve``: pipelines behind an OpenAI-compatible address."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from rag.cli.serve_engine import check_start, supervisor_of, warn_of
from rag.cli.serve_workers import check_workers, lead
from rag.cli.served import from_file, over_corpus
from rag.core.errors import ConfigError, MissingDependency

if TYPE_CHECKING:
    from adapters.registry import Registry
    from rag.cli.options import RetrieverKind
    from rag.core.pipeline import Pipeline
    from rag.core.protocols import LanguageModel, Retriever
    from rag.serve.settings import Doors, Uploads

_DRAIN = 25
"""Seconds that running requests may take after SIGTERM."""
CONNECTIONS: dict[str, Any] = {
    "timeout_graceful_shutdown": _DRAIN + 5,
    "log_config": None,
    "access_log": False,
    "proxy_headers": False,  # whom to believe is said by --trust-proxy
    "server_header": False,
    "http": "rag.serve.doors.heads:Heads",
    "h11_max_incomplete_event_size": 65_536,
}
"""Bodies are read by the routes under their own limit and time; uvicorn's part is the connection. Its access log would show queries."""
_SHORT_KEY = 20
"""Characters; a key that a person made up can be guessed, and wrong keys are not counted."""

_Asked = "What is served"
_Doors = "Who may come in"
_Load = "Under load"


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
    uploads: Annotated[
        bool,
        typer.Option("--uploads", help="Let callers bring, change and delete the corpus's documents.", rich_help_panel=_Asked),
    ] = False,
    adapters: Annotated[
        bool, typer.Option("--adapters", help="Offer the adapters of the registry as models graft:NAME.", rich_help_panel=_Asked)
    ] = False,
    registry: Annotated[
        Path | None, typer.Option(help="Folder of that registry. \\[default: yours]", show_default=False, rich_help_panel=_Asked)
    ] = None,
    start: Annotated[bool, typer.Option("--start", help="Start the vLLM server too, and keep it running.", rich_help_panel=_Asked)] = False,
    engine_option: Annotated[
        list[str] | None,
        typer.Option(
            help="Option of that server, one each time: max-model-len=4096, enforce-eager=true.", show_default=False, rich_help_panel=_Asked
        ),
    ] = None,
    engine_log: Annotated[
        Path | None, typer.Option(help="File for that server's output. \\[default: temporary]", show_default=False, rich_help_panel=_Asked)
    ] = None,
    contexts: Annotated[
        list[Path] | None,
        typer.Option(
            help="Store for that server, from `rag contexts build`; one for each adapter.", show_default=False, rich_help_panel=_Asked
        ),
    ] = None,
    slots: Annotated[int, typer.Option(min=1, help="The vLLM server's --max-loras.", rich_help_panel=_Asked)] = 1,
    max_rank: Annotated[int, typer.Option(min=1, help="The vLLM server's --max-lora-rank.", rich_help_panel=_Asked)] = 16,
    host: Annotated[str, typer.Option(help="Address to listen on.", rich_help_panel=_Doors)] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.", rich_help_panel=_Doors)] = 8080,
    keys: Annotated[Path | None, typer.Option(help="Key file, from `rag keys add`.", show_default=False, rich_help_panel=_Doors)] = None,
    api_key_env: Annotated[
        str | None,
        typer.Option(help="Environment variable with a key that may do everything.", show_default=False, rich_help_panel=_Doors),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name under which it may be asked too, one each time; * for all.", show_default=False, rich_help_panel=_Doors),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(help="Origin of web pages that may ask, one each time.", show_default=False, rich_help_panel=_Doors),
    ] = None,
    trust_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Proxy whose X-Forwarded-For is believed, one each time.", show_default=False, rich_help_panel=_Doors),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(help="Requests a minute for each caller, in each worker. \\[default: any]", show_default=False, rich_help_panel=_Load),
    ] = None,
    running: Annotated[int, typer.Option(min=1, help="Questions answered at once.", rich_help_panel=_Load)] = 64,
    waiting: Annotated[int, typer.Option(min=0, help="Questions that wait; further ones get 429.", rich_help_panel=_Load)] = 128,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an answer may take.", rich_help_panel=_Load)] = 300.0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes that answer; one of them writes.", rich_help_panel=_Load)] = 1,
    log_format: Annotated[Literal["text", "json"], typer.Option(help="Of the log on stderr.")] = "text",
    log_level: Annotated[Literal["debug", "info", "warning", "error"], typer.Option(help="Of the log.")] = "info",
) -> None:
    """Serve OpenAI's protocols from a corpus or a pipeline file, as the model "graft".

    Example:  rag serve --corpus handbook --port 8080
    """
    try:
        import uvicorn

        from rag.serve.adapters import Slots
        from rag.serve.allocator import steady_memory
        from rag.serve.app import create_app
        from rag.serve.observe.logs import configure_logging
        from rag.serve.settings import Limits
        from rag.serve.worker import Seat
    except ImportError as error:
        raise MissingDependency(f"serving needs FastAPI and uvicorn ({error}): pip install 'graft-rag[serve]'") from error
    steady_memory()
    worn, limits = Slots(slots, max_rank), Limits(running, waiting, timeout, _DRAIN)
    seat = Seat.taken()  # None: this process is no worker
    leads = seat is None and workers > 1
    if leads:
        check_workers(workers, limits)
    started, supervisor = None, None
    if start or engine_option or engine_log is not None or contexts:
        check_start(start, engine, url, pipeline)
        if seat is not None:
            supervisor, url = seat.engine()
        else:
            offered = worn if adapters or registry is not None else None
            started = supervisor_of(model or "smollm2", offered, engine_option or [], contexts or [], engine_log, model_key_env)
            url = started.url
            warn_of(contexts or [], url)
    if leads:
        lead(workers, host, port, started, log_format, log_level)
        return
    doors = doors_of(host, port, keys, api_key_env, allow_host or [], allow_origin or [], trust_proxy or [], rate)
    if pipeline is not None:
        refuse_with_pipeline(
            corpus=corpus, engine=engine, url=url, model=model, model_key_env=model_key_env, k=k, retriever=retriever, max_tokens=max_tokens
        )
    store = contexts[0] if contexts else None
    source = _source(pipeline, corpus, partial(make_model, engine, url, model, model_key_env), retriever, k, max_tokens, store)
    pipe, search = source()
    app = create_app(
        pipe,
        retriever=search,
        source=source,
        uploads=_uploads(pipe) if uploads else None,
        adapters=_registry(registry) if adapters or registry is not None else None,
        engine=started or supervisor,
        slots=worn,
        limits=limits,
        doors=doors,
        worker=None if seat is None else seat.worker,
    )
    configure_logging(log_format, log_level)
    if seat is not None:
        seat.serve(app, **CONNECTIONS)
    else:
        uvicorn.run(app, host=host, port=port, **CONNECTIONS)


def _source(
    pipeline: Path | None,
    corpus: Path | None,
    make: Callable[[], LanguageModel],
    kind: RetrieverKind | None,
    k: int | None,
    max_tokens: int | None,
    contexts: Path | None = None,
) -> Callable[[], tuple[Pipeline, Retriever | None]]:
    """Builds what is served, and builds it anew when it is called again."""
    if pipeline is not None:
        return partial(from_file, pipeline)
    if corpus is None:
        raise ConfigError("name what to serve: a pipeline file, or --corpus FOLDER (from `rag index`)")
    return lambda: over_corpus(corpus, make(), kind, k, max_tokens, contexts)


def doors_of(
    host: str,
    port: int,
    keys: Path | None,
    key_env: str | None,
    hosts: list[str],
    origins: list[str],
    proxies: list[str],
    rate: float | None,
) -> Doors:
    from rag.serve.doors.keyfile import KeyFile
    from rag.serve.settings import Doors

    secret = _key(key_env)
    if keys is None and secret is None and not _is_loopback(host):
        raise ConfigError(
            f"anyone who reaches {host}:{port} could ask: make keys with `rag keys add NAME --file keys.json` and give --keys keys.json,"
            " or a single one with --api-key-env NAME; without a key only this machine is served (--host 127.0.0.1)"
        )
    return Doors(
        keys=KeyFile(keys) if keys is not None else None,
        secret=secret,
        bind=host,
        hosts=("*",) if _is_any(host) and not hosts else tuple(hosts),
        origins=tuple(origins),
        per_minute=rate,
        proxies=tuple(proxies),
    )


def _uploads(pipe: Pipeline) -> Uploads:
    """Of the one corpus that the pipeline searches."""
    from generators.models.embedded import cache_folder
    from rag.serve.inspection import corpora_of
    from rag.serve.settings import Uploads

    corpora = corpora_of(pipe)
    if len(corpora) != 1:
        raise ConfigError(f"--uploads needs a pipeline that searches one corpus; this one searches {len(corpora)}")
    return Uploads(corpora[0], cache_folder() / "uploads")


def _registry(folder: Path | None) -> Registry:
    from adapters.registry import Registry

    return Registry(folder)


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(
            f"--api-key-env {name}: there is no such environment variable, or it is empty; set it to the key that callers send"
        )
    if len(key) < _SHORT_KEY:
        typer.echo(f"warning: the key in {name} is short enough to be guessed; `rag keys add` makes one that is not", err=True)
    return key


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_any(host: str) -> bool:
    """Whether this means all addresses of the machine: then its names are not known here, and a key is asked for in any case."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
