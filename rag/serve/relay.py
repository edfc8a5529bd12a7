"""Several workers and one writer: documents, jobs and adapters are answered by the writer alone, which the others ask over a Unix socket.

The worker that a caller reached has let it in (hosts, origins, keys, rates), and counts and logs the request; the writer only answers.
Over the socket there is nothing but the routes of `OWN`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from rag.serve.errors import RequestError
from rag.serve.observe.logs import current_request_id, during
from rag.serve.observe.requests import HEADER, ResponseBroken, request_id
from rag.serve.waiting import GivenUp, unless

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rag.serve.settings import Worker

log = logging.getLogger("graft.serve")

OWN = ("/v1/documents", "/v1/jobs", "/v1/adapters")
"""The writer's own routes, and all below them."""

IDLE_SECONDS = 35.0
"""Without a byte of a body: a little more than the writer itself waits, whose answer is the better one."""

_CONNECT_SECONDS = 5.0
_HOP = frozenset({b"transfer-encoding", b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-connection", b"expect"})
"""Headers that are about one connection, not about the request (RFC 9110, section 7.6.1)."""
_PRIVATE = frozenset({b"authorization", b"cookie", b"x-api-key", HEADER.encode()})
"""What the writer has no use for."""


class Shown:
    """The routes that ``app`` shows: those that depend on pipelines, which can be replaced, and ``lasting``.

    As one of several workers: a reader's own routes of `OWN` lead to the writer, and the writer has them also in `inside`.
    """

    def __init__(self, app: FastAPI, lasting: list[BaseRoute], worker: Worker | None = None) -> None:
        self._app = app
        self._lasting = list(lasting)
        self._relay = Relay(worker.socket) if worker is not None and not worker.writes else None
        self.inside = FastAPI(docs_url=None, redoc_url=None, openapi_url=None) if worker is not None and worker.writes else None

    @property
    def apps(self) -> list[FastAPI]:
        """The application, and what the writer shows to the others."""
        return [self._app] if self.inside is None else [self._app, self.inside]

    def show(self, routes: list[BaseRoute]) -> None:
        """Show these from the next request on. A request that is being routed goes on in the old list."""
        shown = [*routes, *self._lasting]
        own = [route for route in shown if isinstance(route, APIRoute) and _is_own(route.path)]
        if self._relay is not None:
            for route in own:
                route.app = self._relay
        if self.inside is not None:
            self.inside.router.routes = list(own)
        self._app.router.routes = shown

    def add(self, route: BaseRoute) -> None:
        """One more that lasts."""
        self._lasting.append(route)
        self._app.router.routes = [*self._app.router.routes, route]


class Relay:
    """ASGI application: asks the writer at ``socket``, and answers what it answers, piece by piece both ways. While the writer cannot be
    reached: 503. Each request has a connection of its own, which ends with it: a caller that leaves is seen to leave."""

    def __init__(self, socket: Path, *, idle: float = IDLE_SECONDS) -> None:
        self._idle = idle
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=str(socket), limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)),
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            trust_env=False,
            follow_redirects=False,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask. Raises `RequestError` before anything was answered, and `ResponseBroken` if the writer ends in the middle."""
        read = asyncio.Event()

        async def left() -> None:
            await read.wait()
            while (await receive())["type"] != "http.disconnect":
                pass

        try:
            await unless(left(), self._ask(scope, self._body(receive, read), send))
        except GivenUp:
            return

    async def _ask(self, scope: Scope, body: AsyncIterator[bytes], send: Send) -> None:
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        query: bytes = scope.get("query_string", b"")
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP and name not in _PRIVATE]
        headers.append((HEADER.encode(), current_request_id().encode()))
        if any(name == b"transfer-encoding" for name, _ in scope["headers"]):
            headers.append((b"transfer-encoding", b"chunked"))
        # The host is never looked up: the transport knows the socket only.
        url = httpx.URL("http://writer").copy_with(raw_path=path + (b"?" + query if query else b""))
        asked = httpx.Request(scope["method"], url, headers=headers, content=body if _has_body(scope) else None)
        if not _has_body(scope):
            async for _ in body:  # so that leaving is noticed
                pass
        try:
            reply = await self._client.send(asked, stream=True)
        except httpx.TransportError as error:
            log.warning("the writer cannot be asked: %s: %s", type(error).__name__, error)
            raise _unavailable() from error
        try:
            await send({"type": "http.response.start", "status": reply.status_code, "headers": _answered(reply)})
            async for piece in reply.aiter_raw():
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except httpx.TransportError as error:
            raise ResponseBroken(f"the writer ended in the middle of an answer ({type(error).__name__})") from None
        finally:
            await reply.aclose()

    async def _body(self, receive: Receive, read: asyncio.Event) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self._idle):
                    message = await receive()
            except TimeoutError:
                raise RequestError(408, f"no byte of the body came for {self._idle:g} seconds", code="timeout") from None
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body", False):
                read.set()
                return


class Inside:
    """ASGI middleware of the writer, outside of all others: what comes in over ``socket`` goes straight to ``inside``. Who asks there is
    known by the socket itself, which is in the workers' folder, not by anything that a request says."""

    def __init__(self, app: ASGIApp, inside: ASGIApp, socket: Path) -> None:
        self.app = app
        self._inside = inside
        self._address = str(socket)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http" or (scope.get("server") or ("",))[0] != self._address:
            await self.app(scope, receive, send)
            return
        whole = False

        async def sent(message: Message) -> None:
            nonlocal whole
            await send(message)
            whole = message["type"] == "http.response.body" and not message.get("more_body", False)

        with during(request_id(scope["headers"])):
            scope["state"] = {}
            try:
                await self._inside(scope, receive, sent)
            except ClientDisconnect:
                return
            except Exception as error:
                if not whole:  # told without its cause, which the server would log again, outside of the request
                    raise ResponseBroken(f"a relayed response broke off ({type(error).__name__})") from None


def _is_own(path: str) -> bool:
    return any(path == own or path.startswith(f"{own}/") for own in OWN)


def _has_body(scope: Scope) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])


def _answered(reply: httpx.Response) -> list[tuple[bytes, bytes]]:
    """The writer's headers. That a connection ends after an answer is about the caller's too: its body may not have been read."""
    ends = reply.headers.get("connection", "").lower() == "close" and reply.status_code >= 400
    kept = [(name.lower(), value) for name, value in reply.headers.raw if name.lower() not in _HOP | {b"date", HEADER.encode()}]
    return [*kept, *([(b"connection", b"close")] if ends else [])]


def _unavailable() -> RequestError:
    message = "the worker that writes is starting again; try again in 2 s"
    return RequestError(503, message, type="server_error", code="writer_unavailable", retry_after=2)
