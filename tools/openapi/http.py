"""One request with bounded time and size, to an address that was checked, and never on to another host."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from rag.core.errors import RunError
from tools.network import Pinned, check_address

if TYPE_CHECKING:
    import httpx

_REDIRECTS = 3
_TEXTUAL = ("text/", "application/json", "application/xml", "application/yaml", "application/x-yaml", "application/problem+")


async def fetch(url: str, *, limit: int, timeout: float, allow_private: bool) -> str:
    """The text at ``url``. Raises `RunError` if it is longer than ``limit`` bytes, or as `send` does."""
    text, whole = await send("GET", url, limit=limit, timeout=timeout, allow_private=allow_private)
    if not whole:
        raise RunError(f"{url.partition('?')[0]}: longer than {limit:,} bytes")
    return text


async def send(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    json: Any = None,
    secret: str = "",
    limit: int,
    timeout: float,
    allow_private: bool,
    transport: httpx.AsyncBaseTransport | None = None,
) -> tuple[str, bool]:
    """Return the answer's text and whether it is whole: what is past ``limit`` bytes is not read.

    ``timeout`` seconds bound everything, the lookup of the host included. A redirect is followed within the same scheme, host and port
    only. ``json`` None sends no body. ``secret`` is struck out of messages. Raises `InputError` for an address that may not be reached,
    `RunError` for anything else that is no answer in text.
    """
    import httpx

    address = check_address(url, allow_private=allow_private)
    where = f"{method} {address.scheme}://{address.netloc.decode('ascii')}{address.path}"  # not the query: it may hold a key
    inner = transport or httpx.AsyncHTTPTransport(verify=_tls())
    guarded = inner if allow_private else cast("httpx.AsyncBaseTransport", Pinned(inner))
    client = httpx.AsyncClient(transport=guarded, trust_env=False, timeout=timeout, follow_redirects=False)
    body = {} if json is None else {"json": json}
    request = client.build_request(method, url, headers={"Accept-Encoding": "identity", **(headers or {})}, **body)
    try:
        async with asyncio.timeout(timeout), client:
            return await _answer(client, request, where, limit)
    except (TimeoutError, httpx.TimeoutException):
        raise RunError(f"{where}: no answer within {timeout:g} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise RunError(f"{where}: {_without(secret, f'{type(error).__name__}: {error}')[:300]}") from None
    except RunError as error:
        raise RunError(_without(secret, str(error))) from None


async def _answer(client: httpx.AsyncClient, request: httpx.Request, where: str, limit: int) -> tuple[str, bool]:
    for _ in range(_REDIRECTS + 1):
        response = await client.send(request, stream=True)
        try:
            following = response.next_request
            if following is None:
                return await _text(response, where, limit)
            if _origin(following) != _origin(request) or following.method != request.method:
                elsewhere = f"{following.url.scheme}://{following.url.netloc.decode('ascii')}"
                raise RunError(
                    f"{where}: it redirects to {elsewhere} (HTTP {response.status_code}), which is not followed; give that address"
                )
            request = following
        finally:
            await response.aclose()
    raise RunError(f"{where}: redirects more than {_REDIRECTS} times")


async def _text(response: httpx.Response, where: str, limit: int) -> tuple[str, bool]:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    read = bytearray()
    if not kind or kind.startswith(_TEXTUAL) or kind.endswith(("+json", "+xml")):
        async for piece in response.aiter_bytes():
            read += piece
            if len(read) > limit:
                break
    elif response.is_success:
        raise RunError(f"{where}: the answer is {kind!r:.100}, not text")
    try:
        text = bytes(read[:limit]).decode(response.charset_encoding or "utf-8", "replace")
    except LookupError:
        text = bytes(read[:limit]).decode("utf-8", "replace")
    if not response.is_success:
        raise RunError(
            f"{where}: HTTP {response.status_code} {response.reason_phrase}: {' '.join(text.split())[:300] or 'no reason given'}"
        )
    return text, len(read) <= limit


def _origin(request: httpx.Request) -> tuple[str, bytes, int | None]:
    return request.url.scheme, request.url.raw_host, request.url.port


def _without(secret: str, message: str) -> str:
    return message.replace(secret, "***") if secret else message


@cache
def _tls() -> ssl.SSLContext:
    """Reading the certificates takes long, so once."""
    import httpx

    return httpx.create_ssl_context()
