"""``rag serve --workers N``: the process that holds the port and keeps N others at work, each of which runs the same command."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import typer

from rag.core.errors import ConfigError

if TYPE_CHECKING:
    from generators.models.supervisor import Supervisor
    from rag.serve.settings import Limits


def check_workers(number: int, limits: Limits) -> None:
    """Raise `ConfigError` where there cannot be so many, and `InputError` where they have not enough questions to share."""
    from pathlib import Path

    from rag.serve.settings import Worker

    if os.name == "nt":
        raise ConfigError("--workers needs Unix sockets and signals: on this system leave it out")
    Worker(0, number, Path()).share(limits)


def lead(number: int, host: str, port: int, engine: Supervisor | None, log_format: str, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT. Raises `typer.Exit` with the status of a first worker that could not start."""
    import uvicorn

    from rag.serve.observe.logs import configure_logging
    from rag.serve.workers import Workers

    configure_logging(log_format, log_level)
    listening = uvicorn.Config("", host=host, port=port, log_config=None).bind_socket()  # a port that is taken ends here, with a line
    # -P: what lies in the working directory is no part of the program.
    command = [sys.executable, "-P", "-m", "rag.cli.main", *sys.argv[1:]]
    with listening:
        code = asyncio.run(Workers(command, number, listening, engine=engine).run())
    if code:
        raise typer.Exit(code)
