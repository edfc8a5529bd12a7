"""What surrounds every request: its id, its line in the log, its metrics and, where traces are wanted, its spans."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.routing import Match

from rag.core.trace import Span, current_span
from rag.serve.errors import to_request_error
from rag.serve.observe.logs import during, keep_private
from rag.serve.observe.metrics import METHODS, OTHER, Metrics
from rag.serve.observe.recorder import Recorder
from rag.serve.waiting import GONE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rag.serve.observe.spans import Tracing

log = logging.getLogger("graft.access")

HEADER = "x-request-id"
_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LONGEST_CALLER = 64


class ResponseBroken(Exception):
    """A response could not be brought to its end; the connection is closed, so that what was sent does not look whole."""


class Observed:
    """ASGI middleware, outside of all others. It answers with ``X-Request-Id`` (the caller's, if it is 1 to 64 of ``A-Za-z0-9._-``, else a
    new one), turns an error that nobody caught into a 500 of the documented shape, and reports each request once, when it has ended.

    It puts a `Recorder` into ``scope["state"]["recorder"]`` and reads ``scope["state"]["caller"]`` if something else puts a name there.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None = None) -> None:
        self.app = app
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        recorder = Recorder(self._metrics)
        scope.setdefault("state", {})["recorder"] = recorder
        with during(exchange.id):
            _keep_credentials(scope)
            self._metrics.in_flight += 1
            around = current_span.set(exchange.trace)
            try:
                await self._pass_on(scope, exchange)
            finally:
                current_span.reset(around)
                self._metrics.in_flight -= 1
                exchange.end()
                self._report(exchange, recorder)

    async def _pass_on(self, scope: Scope, exchange: Exchange) -> None:
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.left = True
        except Exception as error:
            known = to_request_error(error)
            if exchange.left:
                return
            if exchange.sent is not None:
                # A new error without the old one as its cause: the server would log that one again, outside of the request.
                raise ResponseBroken(f"request {exchange.id}: the response broke off ({type(error).__name__})") from None
            await JSONResponse(known.body(), known.status)(scope, exchange.receive, exchange.send)

    def _report(self, exchange: Exchange, recorder: Recorder) -> None:
        recorder.close(exchange.trace)
        self._metrics.request_ended(exchange.route, exchange.method, exchange.status, exchange.trace.seconds)
        fields = {
            "method": exchange.method,
            "route": exchange.route,
            "status": exchange.status,
            "outcome": exchange.outcome,
            "seconds": round(exchange.trace.seconds, 6),
            "bytes": exchange.bytes,
            "caller": exchange.caller,
            "model": recorder.model or None,
        }
        log.log(logging.WARNING if exchange.status >= 500 else logging.INFO, "request", extra={"fields": fields})
        if self._tracing is not None:
            self._tracing.request(exchange, recorder)


class Exchange:
    """One request and what was answered, as far as an operator may see it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.id = request_id(scope["headers"])
        self.began_ns = time.time_ns()
        """Wall time at which ``trace.started`` was read from the monotonic clock."""
        self.trace = Span("request", started=time.perf_counter())
        self.sent: int | None = None
        """The status that was sent."""
        self.bytes = 0
        self.left = False
        self._whole = False

    @property
    def outcome(self) -> str:
        """ "whole", "left" (by the caller, before that) or "broken"."""
        return "left" if self.left else "whole" if self._whole else "broken"

    @property
    def status(self) -> int:
        """The status that was sent, but 499 if the caller left and 500 if the answer broke off."""
        if self.left:
            return GONE
        return self.sent if self._whole and self.sent is not None else 500

    @property
    def method(self) -> str:
        """The method, or "other" for one that HTTP does not know."""
        given: str = self._scope["method"]
        return given if given in METHODS else OTHER

    @property
    def route(self) -> str:
        """The template of the path, or "other": a path itself may hold what is private, and there is no end of them."""
        route = self._scope.get("route")
        if route is None and "app" in self._scope:  # refused before it was routed
            route = next((r for r in self._scope["app"].routes if r.matches(self._scope)[0] is not Match.NONE), None)
        return str(getattr(route, "path_format", None) or getattr(route, "path", None) or OTHER)

    @property
    def caller(self) -> str | None:
        """Who asked, if something before the routes has found it out."""
        caller = self._scope["state"].get("caller")
        return None if caller is None else str(getattr(caller, "name", caller))[:_LONGEST_CALLER]

    def header(self, name: bytes) -> str | None:
        """A header that was given exactly once."""
        found = [value for key, value in self._scope["headers"] if key == name]
        return found[0].decode("latin-1") if len(found) == 1 else None

    async def receive(self) -> Message:
        """Notices a caller that leaves before its answer is whole."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._whole:
            self.left = True
        return message

    async def send(self, message: Message) -> None:
        """Adds the id, and counts."""
        if message["type"] == "http.response.start":
            self.sent = message["status"]
            kept = [(name, value) for name, value in message.get("headers", []) if name.lower() != HEADER.encode()]
            message = {**message, "headers": [*kept, (HEADER.encode(), self.id.encode())]}
        elif message["type"] == "http.response.body":
            self.bytes += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
        await self._send(message)

    def end(self) -> None:
        """Stop the clock."""
        self.trace.seconds = time.perf_counter() - self.trace.started


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The caller's id if it gave one that is harmless wherever it is written, else a new one."""
    given = [value.decode("latin-1") for name, value in headers if name == HEADER.encode()]
    return given[0] if len(given) == 1 and _ID.fullmatch(given[0]) else uuid.uuid4().hex


def _keep_credentials(scope: Any) -> None:
    """No message may repeat the caller's key."""
    for name, value in scope["headers"]:
        if name in (b"authorization", b"x-api-key", b"cookie"):
            text = value.decode("latin-1")
            keep_private(text)
            keep_private(text.rpartition(" ")[2])
