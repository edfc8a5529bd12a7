"""A client that measures: chat requests streamed from an OpenAI-compatible endpoint, a given number of them in flight."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import httpx

from rag.core.errors import InputError, ModelError, ModelUnavailable

TIMEOUT = 600.0
"""Seconds without a byte. A request that waits in the server's queue is slow, not lost."""


@dataclass(frozen=True, slots=True)
class Timing:
    """One answered request: seconds to the first text and to the end, and the tokens of the answer."""

    ttft: float
    latency: float
    tokens: int


@dataclass(slots=True)
class Level:
    """What came of one level in ``seconds``: the answered requests in the order they ended, and why the others failed."""

    seconds: float = 0.0
    answered: list[Timing] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


class Endpoint:
    """Where the requests go: ``url`` with its /v1. ``model``: the first that the server lists if None. ``key`` is sent, never shown."""

    def __init__(self, url: str, model: str | None, max_tokens: int, *, key: str | None = None) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InputError(f"the address of the server is no URL ({error}); it looks like http://localhost:8080/v1") from error
        if parsed.scheme not in ("http", "https") or not parsed.host:
            raise InputError("the address of the server begins with http:// or https:// and a host, such as http://localhost:8080/v1")
        self._url = url.rstrip("/")
        self.address = str(parsed.copy_with(userinfo=b"", query=None, fragment=None)).rstrip("/")
        self.max_tokens = max_tokens
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._context = httpx.create_ssl_context()  # reading the certificates once per worker would take longer than a short request
        self._model = model

    @property
    def model(self) -> str:
        """The name to ask for. Raises `ModelUnavailable` if the server does not list its models."""
        if self._model is None:
            try:
                answer = httpx.get(f"{self._url}/models", headers=self._headers, timeout=30.0, trust_env=False, verify=self._context)
                self._model = str(answer.raise_for_status().json()["data"][0]["id"])
            except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                raise ModelUnavailable(f"{self.address}/models lists no model ({type(error).__name__}); name one with --model") from error
        return self._model

    def client(self) -> httpx.AsyncClient:
        """One worker's connection. httpcore looks through the whole pool for each request, so workers do not share one."""
        limits = httpx.Limits(max_connections=1)
        return httpx.AsyncClient(headers=self._headers, timeout=TIMEOUT, limits=limits, trust_env=False, verify=self._context)

    async def ask(self, client: httpx.AsyncClient, question: str) -> Timing:
        """Stream the answer to ``question``. Raises `ModelError`, also for an answer that has no text or stops short."""
        body = {
            "model": self._model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        start = time.perf_counter()
        try:
            async with client.stream("POST", f"{self._url}/chat/completions", json=body) as response:
                if response.status_code != 200:
                    raise ModelError(f"status {response.status_code}: {(await response.aread())[:200].decode(errors='replace')}")
                return await _timed(response.aiter_lines(), start)
        except httpx.HTTPError as error:
            raise ModelError(f"{type(error).__name__}: {error}") from error


async def run_level(endpoint: Endpoint, questions: Sequence[str], in_flight: int, seconds: float) -> Level:
    """Ask ``questions`` in their order, ``in_flight`` at a time; after ``seconds`` no further ones. Failures do not stop it."""
    _ = endpoint.model  # asked for before the clock starts
    level = Level()
    waiting = iter(questions)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(endpoint.client()) for _ in range(min(in_flight, len(questions)))]
        start = time.perf_counter()
        await asyncio.gather(*(_work(endpoint, client, waiting, level, start + seconds) for client in clients))
        level.seconds = time.perf_counter() - start
    return level


async def _work(endpoint: Endpoint, client: httpx.AsyncClient, waiting: Iterator[str], level: Level, end: float) -> None:
    while time.perf_counter() < end:
        question = next(waiting, None)
        if question is None:
            return
        try:
            level.answered.append(await endpoint.ask(client, question))
        except ModelError as error:
            level.failures.append(" ".join(str(error).split()))


async def _timed(lines: AsyncIterator[str], start: float) -> Timing:
    """Read server-sent events to their end."""
    first: float | None = None
    pieces, tokens, ended = 0, None, False
    async for line in lines:
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            ended = True
            break
        chunk = _parsed(data)
        if _text(chunk):
            first = first or time.perf_counter()
            pieces += 1
        usage = chunk.get("usage")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else tokens
    latency = time.perf_counter() - start
    if not ended:
        raise ModelError("the stream broke off before [DONE]")
    if first is None:
        raise ModelError("the answer has no text")
    return Timing(first - start, latency, tokens if isinstance(tokens, int) else pieces)


def _parsed(data: str) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except ValueError as error:
        raise ModelError(f"an event is not JSON: {data[:200]}") from error
    if not isinstance(chunk, dict):
        raise ModelError(f"an event is no object: {data[:200]}")
    if chunk.get("error"):
        raise ModelError(f"error in the stream: {json.dumps(chunk['error'])[:200]}")
    return chunk


def _text(chunk: dict[str, Any]) -> str:
    choices = chunk.get("choices")
    delta = choices[0].get("delta") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    content = delta.get("content") if isinstance(delta, dict) else None
    return content if isinstance(content, str) else ""
