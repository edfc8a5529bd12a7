"""A stand-in for vLLM's server: ``fake_engine.py PORT FOLDER``. FOLDER/plan tells what it does, a line for each start; the last one stays.

Words of a line: ``exit=STATUS`` ends at once; ``slow=SECONDS`` listens late, ``deaf`` never; ``stubborn`` ignores SIGTERM; ``family``
starts a process, and one in a session of its own; ``loud=LINES`` prints; ``alone`` binds without SO_REUSEPORT; ``lora`` answers as
`LoraServer`, with five events in a stream. POST /die, /hang and /cut (die within the next stream) do as they say. FOLDER/lives gets a
JSON line for each start, with the earlier processes that are still there.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

EVENTS = 5
IDLE = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


class Server(ThreadingHTTPServer):
    """Binds its port as vLLM does."""

    daemon_threads = True
    request_queue_size = 128
    hung = False
    cut = False
    lora: Any = None

    def server_bind(self) -> None:
        """Bind; Python's own allow_reuse_port came with 3.12."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if "alone" not in WORDS:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self.socket.bind(self.server_address)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Health, or what the script says."""
        if self.server.hung:
            time.sleep(600)
        if self.path == "/health":
            self._answer(b"")
        else:
            self._pass_on(b"")

    def do_POST(self) -> None:
        """An order, or what the script says."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.path in ("/hang", "/cut"):
            setattr(self.server, {"/hang": "hung", "/cut": "cut"}[self.path], True)
            self._answer(b"")
        else:
            self._pass_on(body)

    def _pass_on(self, body: bytes) -> None:
        import asyncio

        import httpx

        request = httpx.Request(self.command, f"http://engine{self.path}", content=body)
        given = asyncio.run(self.server.lora(request))
        if given.content.startswith(b"data: "):
            self._stream(json.loads(given.content.removeprefix(b"data: ").split(b"\n")[0]))
        else:
            self._answer(given.content, given.status_code)

    def _stream(self, event: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(EVENTS):
            choice = event["choices"][0] | {"finish_reason": "stop" if number == EVENTS - 1 else None}
            self._chunk(b"data: " + json.dumps(event | {"choices": [choice]}).encode() + b"\n\n")
            if self.server.cut and number == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.02)
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _answer(self, content: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def main() -> None:
    """Live as the plan says."""
    family = [subprocess.Popen([sys.executable, "-c", IDLE], start_new_session=own).pid for own in (False, True) if "family" in WORDS]
    earlier = [pid for life in LIVES for pid in (life["pid"], *life["family"]) if Path(f"/proc/{pid}").exists()]
    with (FOLDER / "lives").open("a") as lives:
        print(json.dumps({"pid": os.getpid(), "family": family, "earlier": earlier, "environment": dict(os.environ)}), file=lives)
    print("the engine is born", flush=True)
    for number in range(int(WORDS.get("loud", 0))):
        print(f"line {number:06d} " + "x" * 88, flush=True)
    if "exit" in WORDS:
        print("out of everything", flush=True)
        sys.exit(int(WORDS["exit"]))
    if "stubborn" in WORDS:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(float(WORDS.get("slow", 0)))
    if "deaf" in WORDS:
        threading.Event().wait()
    server = Server(("127.0.0.1", int(sys.argv[1])), Handler)
    if "lora" in WORDS:
        sys.path.insert(0, str(Path(__file__).parents[4]))
        from tests.generators.models.lora_server import LoraServer

        server.lora = LoraServer(pause=0.05)
    server.serve_forever()


if __name__ == "__main__":
    FOLDER = Path(sys.argv[2])
    LINES = (FOLDER / "plan").read_text().splitlines()
    LIVES = [json.loads(line) for line in (FOLDER / "lives").read_text().splitlines()] if (FOLDER / "lives").exists() else []
    WORDS = {name: value for name, _, value in (word.partition("=") for word in LINES[min(len(LIVES), len(LINES) - 1)].split())}
    main()
