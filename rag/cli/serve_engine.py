"""The vLLM server that ``rag serve --start`` runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rag.core.errors import ConfigError

if TYPE_CHECKING:
    from generators.models.server import Flag
    from generators.models.supervisor import Supervisor
    from rag.serve.adapters import Slots


def check_start(start: bool, engine: str | None, url: str | None, pipeline: Path | None) -> None:
    """Raise `ConfigError` for options that belong to a server of our own, if none is started."""
    if not start:
        raise ConfigError("--engine-option, --engine-log and --contexts belong to the server that --start starts; add --start")
    if engine != "vllm" or url is not None or pipeline is not None:
        raise ConfigError("--start runs a vLLM server for --corpus: add --engine vllm, and leave --url and the pipeline file out")


def warn_of(contexts: list[Path], url: str) -> None:
    """Say which of the stores nobody has checked yet, and how it is done."""
    from generators.models.vllm_contexts.certificate import unchecked

    for words in filter(None, (unchecked(store, url) for store in contexts)):
        typer.echo(f"warning: {words}", err=True)


def supervisor_of(
    model: str, worn: Slots | None, options: list[str], contexts: list[Path], log: Path | None, key_env: str | None
) -> Supervisor:
    """Who will run the server, with room for adapters (``worn``) and the stores ``contexts``. Raises what `Supervisor` does."""
    from generators.models.supervisor import Supervisor
    from rag.serve.engine import engine_options

    flags: dict[str, Flag] = {} if worn is None else {"max-loras": worn.number, "max-lora-rank": worn.max_rank}
    if contexts:
        from generators.models.vllm_contexts.flags import context_flags

        flags |= context_flags(contexts)
    return Supervisor(model, adapters=worn is not None, options={**flags, **engine_options(options)}, log=log, api_key_env=key_env)
