"""A real `rag serve`, its workers, and connections that reach one of them."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Server:
    """``rag serve`` with ``options``, from when it answers."""

    def __init__(self, folder: Path, *options: str | Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.seen: set[int] = set()
        """All workers that were looked at."""
        self.log = folder / "server.log"
        self.temporary = Path(tempfile.mkdtemp(prefix="g-", dir="/tmp"))  # short: a socket's path has room for a hundred bytes
        environment = {**os.environ, "TMPDIR": str(self.temporary), "OMP_NUM_THREADS": "1", "GRAFT_CACHE": str(folder / "cache")}
        command = [sys.executable, "-m", "rag.cli.main", "serve", *map(str, options), "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log, stdout=log, env=environment)

    def said(self) -> str:
        """Its log."""
        return self.log.read_text()

    def until(self, true: Callable[[], Any], seconds: float = 90) -> Any:
        """What ``true`` gives once it gives something; connections that fail count as nothing."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := true():
                    return found
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"it did not come true:\n{self.said()}")

    def workers(self) -> dict[int, int]:
        """The process of each worker that is there."""
        found = {}
        for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split():
            environment = dict(line.partition("=")[::2] for line in Path(f"/proc/{pid}/environ").read_text().split("\0"))
            if "GRAFT_WORKER" in environment:
                found[json.loads(environment["GRAFT_WORKER"])["number"]] = int(pid)
        self.seen |= set(found.values())
        return found

    def answering(self, number: int) -> None:
        """Wait until so many workers answer."""
        self.until(lambda: self.said().count("Application startup complete") >= number)

    def to(self, worker: int | None = None) -> Caller:
        """A connection that ``worker`` has accepted: the others stand still meanwhile."""
        others = [pid for number, pid in self.workers().items() if worker is not None and number != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            caller = Caller(self.port)
            assert caller.get("/livez")[0] == 200
            return caller
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)


class Caller:
    """One connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and body, which is JSON if it can be; with a body it is a POST."""
        sent = None if body is None else json.dumps(body)
        self._connection.request(
            "GET" if body is None else "POST", path, sent, {} if body is None else {"Content-Type": "application/json"}
        )
        reply = self._connection.getresponse()
        text = reply.read()
        return reply.status, json.loads(text) if reply.headers["content-type"] == "application/json" else text.decode()

    def hits(self, question: str) -> int:
        """How many passages the pipeline finds."""
        asked = {"model": "graft", "messages": [{"role": "user", "content": question}]}
        status, body = self.get("/v1/chat/completions", asked)
        assert status == 200, body
        return int(body["choices"][0]["message"]["content"].count("Passage("))  # the pipeline ends in hits, which are told as text


@contextmanager
def served(folder: Path, *options: str | Path) -> Iterator[Server]:
    """Ended afterwards, whatever became of it, with all that it started."""
    server = Server(folder, *options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.workers()
            server.process.send_signal(signal.SIGTERM)
            try:
                server.process.wait(60)
            except subprocess.TimeoutExpired:
                server.process.kill()
                server.process.wait()
        for pid in server.seen:
            with suppress(OSError):
                if b"GRAFT_WORKER" in Path(f"/proc/{pid}/environ").read_bytes():  # nobody else has its number by now
                    os.kill(pid, signal.SIGKILL)
        shutil.rmtree(server.temporary, ignore_errors=True)


def search_file(path: Path, corpus: Path, k: int) -> Path:
    """A pipeline that gives ``k`` passages."""
    path.write_text(f"nodes:\n  search: {{type: BM25, corpus: {{type: Corpus, path: {corpus}}}, k: {k}}}\n")
    return path
