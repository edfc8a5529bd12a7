"""``rag serve`` as a process of its own, while a block lasts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

from rag.core.errors import ModelUnavailable

WAIT = 180.0
"""Seconds until it must be healthy: it loads the encoder first."""
STOP = 45.0
"""Seconds it has to end; its own drain takes at most 30."""


@contextmanager
def rag_server(corpus: Path, model_url: str, max_tokens: int) -> Iterator[str]:
    """Serve ``corpus`` with the model behind ``model_url`` and yield the address, with its /v1. Raises `ModelUnavailable`."""
    port = _free_port()
    serve = ["serve", "--corpus", str(corpus), "--engine", "vllm", "--url", model_url, "--max-tokens", str(max_tokens), "--port", str(port)]
    with tempfile.TemporaryFile("w+b") as log:
        # in a session of its own, so that Ctrl-C ends the requests first and the server after them
        command = [sys.executable, "-m", "rag.cli.main", *serve]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            _wait_until_healthy(process, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            _stop(process)


def _wait_until_healthy(process: subprocess.Popen[bytes], url: str, log: IO[bytes]) -> None:
    end = time.monotonic() + WAIT
    with httpx.Client(trust_env=False, timeout=10.0) as client:
        while time.monotonic() < end:
            if process.poll() is not None:
                raise ModelUnavailable(f"rag serve ended with status {process.returncode}; its last words:\n{_tail(log)}")
            try:
                if client.get(f"{url}/healthz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
    raise ModelUnavailable(f"rag serve was not healthy after {WAIT:g} s; its last words:\n{_tail(log)}")


def _tail(log: IO[bytes], size: int = 4000) -> str:
    end = os.fstat(log.fileno()).st_size
    # pread leaves the file position alone, at which the server writes
    return os.pread(log.fileno(), size, max(0, end - size)).decode("utf-8", errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
