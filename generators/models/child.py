"""A server that this process starts: where it listens, and when it is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from typing import IO

from rag.core.errors import ModelUnavailable


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_healthy(process: subprocess.Popen[bytes], url: str, wait: float, output: IO[bytes], name: str) -> None:
    """Return when ``url`` answers 200.

    Raises `ModelUnavailable`, with the end of ``output``, if ``process`` ends before or ``wait`` seconds pass. ``name`` is for that.
    """
    import httpx

    deadline = time.monotonic() + wait
    with httpx.Client(trust_env=False, timeout=10.0) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ModelUnavailable(f"{name} ended with status {process.returncode} while starting; its last words:\n{tail(output)}")
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
    raise ModelUnavailable(f"{name} was not healthy after {wait:g} s; raise `wait` or read its last words:\n{tail(output)}")


def tail(output: IO[bytes], size: int = 4000) -> str:
    """The last ``size`` bytes of a file that another process is writing."""
    end = os.fstat(output.fileno()).st_size
    # pread leaves the file position alone, at which the server writes
    return os.pread(output.fileno(), size, max(0, end - size)).decode("utf-8", errors="replace")
