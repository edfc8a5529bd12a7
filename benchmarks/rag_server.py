"""``rag serve`` as a process of its own, while a block lasts."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from generators.models.child import free_port, wait_until_healthy

WAIT = 180.0
"""Seconds until it must be healthy: it loads the encoder first."""
STOP = 45.0
"""Seconds it has to end; its own drain takes at most 30."""


@contextmanager
def rag_server(corpus: Path, model_url: str, max_tokens: int) -> Iterator[str]:
    """Serve ``corpus`` with the model behind ``model_url`` and yield the address, with its /v1. Raises `ModelUnavailable`."""
    with serving(["--corpus", str(corpus), "--engine", "vllm", "--url", model_url, "--max-tokens", str(max_tokens)]) as address:
        yield address


@contextmanager
def serving(options: Sequence[str]) -> Iterator[str]:
    """``rag serve`` with ``options`` on a free port; yields the address, with its /v1. Raises `ModelUnavailable`."""
    port = free_port()
    serve = ["serve", *options, "--port", str(port)]
    with tempfile.TemporaryFile("w+b") as log:
        # in a session of its own, so that Ctrl-C ends the requests first and the server after them
        command = [sys.executable, "-m", "rag.cli.main", *serve]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            wait_until_healthy(process, f"http://127.0.0.1:{port}/healthz", WAIT, log, "rag serve")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
