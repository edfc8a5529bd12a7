"""How much is read from a caller, and for how long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rag.serve.errors import RequestError

if TYPE_CHECKING:
    from starlette.requests import Request

MAX_BODY = 1_000_000
"""Bytes of a request's body."""

READ_SECONDS = 30.0
"""How long a caller may take to send its body."""


async def read_body(request: Request, most: int = MAX_BODY) -> bytes:
    """The JSON body, of at most ``most`` bytes. Raises `RequestError`: 415 for another content type, 413 if it is larger, 408 if it comes
    too slowly."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a page in a browser cannot send this type to another site without being asked first
        raise RequestError(415, "send JSON with the header 'Content-Type: application/json'", code="unsupported_media_type")
    body = bytearray()
    try:
        async with asyncio.timeout(READ_SECONDS):
            async for piece in request.stream():
                body += piece
                if len(body) > most:
                    raise RequestError(413, f"the body is larger than {most:,} bytes", code="request_too_large")
    except TimeoutError:
        raise RequestError(408, f"the body did not arrive within {READ_SECONDS:g} seconds", code="timeout") from None
    return bytes(body)
