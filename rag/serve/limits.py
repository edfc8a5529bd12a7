"""What stands in front of every route: the key, and how much is read from a caller."""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from rag.serve.errors import RequestError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_BODY = 1_000_000
"""Bytes of a request's body."""

READ_SECONDS = 30.0
"""How long a caller may take to send its body."""

_OPEN = "/healthz"


class BearerKey:
    """Lets a request through if it carries ``Authorization: Bearer KEY``; `/healthz` needs none. It stands before the routes, so that a
    route added later is closed too."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self.app = app
        self._expected = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or hand on."""
        if scope["type"] not in ("http", "websocket") or (scope["type"] == "http" and scope["path"] == _OPEN) or self._knows(scope):
            await self.app(scope, receive, send)
            return
        error = RequestError(401, "wrong or missing API key: send the header 'Authorization: Bearer KEY'", code="invalid_api_key")
        await JSONResponse(error.body(), 401, {"WWW-Authenticate": "Bearer"})(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


async def read_body(request: Request) -> bytes:
    """The JSON body. Raises `RequestError`: 415 for another content type, 413 if it is too large, 408 if it comes too slowly."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page in a browser cannot send this type to another site without being asked first
        raise RequestError(415, "send JSON with the header 'Content-Type: application/json'", code="unsupported_media_type")
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise RequestError(413, f"the body is larger than {MAX_BODY:,} bytes", code="request_too_large")
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {READ_SECONDS:g} seconds", code="timeout") from None
    return bytes(body)
