"""A pooled HTTP client that tries again: what a model behind an address needs, and nothing of any one server's format."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from generators.models.connections import Connections
from rag.core.deadline import remaining
from rag.core.errors import ConfigError, InputError, ModelError, ModelRefused, ModelUnavailable, PromptTooLong

if TYPE_CHECKING:
    import httpx

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOO_LONG = re.compile(r"maximum context length|context_length_exceeded|longer than the maximum model length|max_model_len", re.IGNORECASE)
_LONGEST_PAUSE = 60.0


class HttpClient:
    """JSON over HTTP to one server: ``get``, ``post`` and ``stream`` (server-sent events).

    Connections are pooled per event loop, at most ``max_connections`` each; more calls wait. Connection errors, timeouts (``timeout``
    seconds without a byte), 429 and 5xx are tried again up to ``retries`` times, after what ``Retry-After`` says or an exponential
    backoff with jitter; then `ModelUnavailable`. Any other 4xx raises `ModelRefused` with the server's reason, or `PromptTooLong`.
    ``api_key_env`` names the environment variable that holds the key; the key itself is read for each request and shown nowhere.
    """

    def __init__(
        self, url: str, *, api_key_env: str | None, key_required: bool, timeout: float, retries: int, max_connections: int
    ) -> None:
        self.address = _checked_address(url)
        self._basic = _basic(url)
        if api_key_env is not None and not _ENVIRONMENT_NAME.fullmatch(api_key_env):
            raise InputError(
                "api_key_env is the name of the environment variable that holds the key, such as 'OPENAI_API_KEY', never the key itself"
            )
        if not timeout > 0:
            raise InputError(f"timeout is a number of seconds above 0, not {timeout!r}")
        if retries < 0:
            raise InputError(f"retries is at least 0, not {retries!r}")
        if max_connections < 1:
            raise InputError(f"max_connections is at least 1, not {max_connections!r}")
        self._api_key_env = api_key_env
        self._key_required = key_required
        self._timeout = timeout
        self._retries = retries
        self._max_connections = max_connections
        self._connections: dict[asyncio.AbstractEventLoop, Connections] = {}
        self.transport: httpx.AsyncBaseTransport | None = None  # None: the network
        self.pause = 0.5  # seconds before the first repetition; it doubles

    async def get(self, path: str) -> Any:
        """GET ``path`` and return the JSON answer."""
        return await self._call("GET", path, None)

    async def text(self, path: str) -> str:
        """GET ``path`` and return the answer as it is."""
        return str(await self._call("GET", path, None, lambda response: response.text))

    async def post(self, path: str, payload: Mapping[str, Any]) -> Any:
        """POST ``payload`` as JSON to ``path`` and return the JSON answer."""
        return await self._call("POST", path, payload)

    async def tell(self, path: str, payload: Mapping[str, Any]) -> None:
        """POST ``payload`` to an address that answers in words, if at all; only a refusal matters."""
        await self._call("POST", path, payload, lambda response: None)

    async def stream(self, path: str, payload: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """POST and yield the JSON of each server-sent event.

        A stream that breaks before its first event is asked for again; one that breaks later raises `StreamBroken`, because what was
        yielded cannot be taken back.
        """
        import httpx

        for attempt in range(self._retries + 1):
            delivered = 0
            try:
                async with (
                    self._here().client() as client,
                    client.stream("POST", self.address + path, json=payload, headers=self._headers()) as response,
                ):
                    if response.is_success:
                        async with aclosing(_events(response, self.address)) as events:
                            async for event in events:
                                delivered += 1
                                yield event
                        return
                    await response.aread()
                    reason, wait = self._failure(response)
            except (httpx.TransportError, _StreamCut) as error:
                reason, wait = _reason(error), None
                if delivered:
                    raise StreamBroken(
                        f"the stream from {self.address} broke off after {delivered} events ({reason}); what was delivered cannot be "
                        "taken back, so it is not repeated: ask again"
                    ) from error
            await self._rest(attempt, wait, reason)

    async def close(self) -> None:
        """Close the connections of the running event loop, and forget those of loops that have ended."""
        connections = self._connections.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()
        self._forget_ended()

    async def _call(
        self, method: str, path: str, payload: Mapping[str, Any] | None, read: Callable[[httpx.Response], Any] | None = None
    ) -> Any:
        import httpx

        for attempt in range(self._retries + 1):
            wait = None
            try:
                async with self._here().client() as client:
                    response = await client.request(method, self.address + path, json=payload, headers=self._headers())
                if response.is_success:
                    return (read or self._decoded)(response)
                reason, wait = self._failure(response)
            except httpx.TransportError as error:
                reason = _reason(error)
            await self._rest(attempt, wait, reason)
        raise AssertionError("unreachable: the last attempt raises")

    async def _rest(self, attempt: int, wait: float | None, reason: str) -> None:
        """Wait before the next attempt; raise `ModelUnavailable` if there is none."""
        if attempt == self._retries:
            tries = "one attempt" if attempt == 0 else f"{attempt + 1} attempts"
            raise ModelUnavailable(f"the model server at {self.address} did not answer in {tries}; the last failure: {reason}")
        backoff = self.pause * 2**attempt * random.uniform(0.5, 1.0)
        rest, left = min(backoff if wait is None else wait, _LONGEST_PAUSE), remaining()
        if left is not None and rest >= left:
            raise ModelUnavailable(
                f"the model server at {self.address} did not answer, and the {left:.1f} s that are left are too few to try again;"
                f" the last failure: {reason}"
            )
        await asyncio.sleep(rest)

    def _failure(self, response: httpx.Response) -> tuple[str, float | None]:
        """Return (reason, seconds to wait if the server says) of an answer worth another attempt; raise for the others."""
        status = response.status_code
        message = self._without_key(error_message(response.text))
        if status in (408, 429) or status >= 500:
            return f"HTTP {status}: {message}", _retry_after(response.headers.get("retry-after"))
        if _TOO_LONG.search(response.text):
            raise PromptTooLong(f"{self.address} refused the prompt as too long: {message}; give fewer or shorter passages")
        if status == 401 and self._api_key_env and not self._key():
            message += f" (the environment variable {self._api_key_env}, which should hold the key, is not set)"
        if status < 400:
            message = "it redirects elsewhere; give the address itself, with its /v1"
        raise ModelRefused(f"{self.address} refused {response.request.method} {response.request.url.path} with HTTP {status}: {message}")

    def _decoded(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError:  # JSONDecodeError and UnicodeDecodeError
            start = response.text[:80]
            raise ModelError(
                f"{self.address} answered what is not JSON: {start!r}; is it an OpenAI-compatible server, and its address complete?"
            ) from None

    def _headers(self) -> dict[str, str]:
        key = self._key()
        if not key and self._api_key_env and self._key_required:
            raise ConfigError(f"the environment variable {self._api_key_env}, which should hold the key for {self.address}, is not set")
        if not (key.isascii() and key.isprintable()):
            raise ConfigError(f"the key in the environment variable {self._api_key_env} holds characters that no HTTP header can carry")
        if key or self._basic:
            return {"Authorization": f"Bearer {key}" if key else self._basic}
        return {}

    def _key(self) -> str:
        return os.environ.get(self._api_key_env, "").strip() if self._api_key_env else ""

    def _without_key(self, message: str) -> str:
        key = self._key()
        return message.replace(key, "***") if key else message

    def _here(self) -> Connections:
        loop = asyncio.get_running_loop()
        found = self._connections.get(loop)
        if found is None:
            self._forget_ended()
            found = self._connections[loop] = Connections(self.address, self._max_connections, self._timeout, self.transport)
        return found

    def _forget_ended(self) -> None:
        for loop in [loop for loop in list(self._connections) if loop.is_closed()]:  # a copy: other threads add theirs
            self._connections.pop(loop, None)


class StreamBroken(ModelUnavailable):
    """A stream ended too early, after some of it was delivered."""


class _StreamCut(Exception):
    """The connection ended before the stream said that it was done."""


async def _events(response: httpx.Response, address: str) -> AsyncGenerator[Any, None]:
    # Lines are split by hand: httpx's own splitting also takes U+2028 and the like, which JSON may hold unescaped.
    rest = b""
    async for chunk in response.aiter_bytes():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            try:
                event = json.loads(data)
            except ValueError:
                raise ModelError(f"{address} sent an event that is not JSON: {data[:80]!r}") from None
            if isinstance(event, dict) and event.get("error"):
                raise _streamed_error(event["error"], address)
            yield event
    raise _StreamCut("the connection ended before the stream did")


def _streamed_error(error: Any, address: str) -> ModelError:
    message = error_message(json.dumps({"error": error}))
    code = error.get("code") if isinstance(error, dict) else None
    if _TOO_LONG.search(message):
        return PromptTooLong(f"{address} refused the prompt as too long: {message}")
    if isinstance(code, int) and 400 <= code < 500:
        return ModelRefused(f"{address} refused the request while it streamed: {message}")
    return ModelUnavailable(f"{address} failed while it streamed: {message}")


def error_message(body: str) -> str:
    """The reason within an error answer of the OpenAI format, or the start of whatever came."""
    try:
        value = json.loads(body)
    except ValueError:
        return body.strip()[:300] or "no reason given"
    if isinstance(value, dict):
        value = value.get("error") or value.get("detail") or value.get("message") or value
    if isinstance(value, dict):
        value = value.get("message") or value
    return str(value)[:1000]


def _reason(error: BaseException) -> str:
    error = error.__cause__ or error  # httpx-aiohttp calls a server that hangs up a timeout
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After`` header: a number or a date (RFC 9110, section 10.2.3)."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _basic(url: str) -> str:
    """The header's value for the user and password within ``url`` (RFC 7617), "" if it has none."""
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return ""
    words = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + b64encode(words.encode()).decode()


def _checked_address(url: str) -> str:
    """``url`` without the password that it may hold; `InputError` unless it is http(s) with a host."""
    allowed = "write it like http://localhost:8000/v1"
    if not isinstance(url, str):
        raise InputError(f"the model server's address is a string, not {type(url).__name__}; {allowed}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"the model server's address is no URL; {allowed}") from error
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment or "\\" in url:
        raise InputError(f"the model server's address starts with http:// or https://, names a host and has no query; {allowed}")
    netloc = (f"[{host}]" if ":" in host else host) + (f":{port}" if port else "")
    return f"{parts.scheme}://{netloc}{parts.path}".rstrip("/")
