"""A pipeline with many questions in flight beside what the server itself can do with the very same requests.

A first pass records what the pipeline sends to ``/v1/completions`` (token ids and sampling) and where it leaves a stream early; the ceiling
is a bare client that sends these bodies again, all at once, and leaves the same streams at the same event: until the server notices, it
writes on, for either. Both take turns, best of some rounds each; then the pipeline answers some of the questions one by one.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass

import httpx

from benchmarks.report import Row
from generators.models.connections import IDLE
from generators.models.server import serve_vllm
from generators.models.vllm import VLLM
from rag.core.errors import ConfigError
from rag.core.pipeline import Pipeline
from rag.core.sync import run_sync

IN_FLIGHT = 64
POOL = 8
"""Requests that share a client: httpcore looks through all connections of a client for each request, so one for all would be slow."""
EVENT = b"data: {"
"""How each event of a stream begins that brings tokens."""
TIMEOUT = 600.0
"""Seconds without a byte. A request that waits in the server's queue until all others are done is slow, not lost."""

Build = Callable[[VLLM], Pipeline]


@dataclass(slots=True)
class Sent:
    """A request to ``/v1/completions``; ``left`` is how many events of its stream were read before it was left (None: all)."""

    body: bytes
    left: int | None = None


class Counted(httpx.AsyncByteStream):
    """A stream of events; ``left`` is told how many came if it is closed before its end."""

    def __init__(self, stream: httpx.AsyncByteStream, left: Callable[[int], None]) -> None:
        self._stream = stream
        self._left = left
        self._events = 0
        self._ended = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._events += chunk.count(EVENT)
            yield chunk
        self._ended = True

    async def aclose(self) -> None:
        """Close the connection's part of it."""
        if not self._ended:
            self._left(self._events)
        await self._stream.aclose()


class Recorder(httpx.AsyncBaseTransport):
    """The network, with a copy of every request to ``/v1/completions``."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._network = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=IN_FLIGHT, keepalive_expiry=IDLE))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass ``request`` on."""
        if not request.url.path.endswith("/v1/completions"):
            return await self._network.handle_async_request(request)
        sent = Sent(await request.aread())
        self.sent.append(sent)
        response = await self._network.handle_async_request(request)
        if json.loads(sent.body).get("stream") and isinstance(response.stream, httpx.AsyncByteStream):

            def left(events: int) -> None:
                sent.left = events

            response.stream = Counted(response.stream, left)
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._network.aclose()


@dataclass(frozen=True, slots=True)
class Race:
    """Passes over ``questions`` against the server at ``url``; with ``empty`` each begins with an empty prefix cache, else a full one.

    ``rounds`` passes of each side, the best counts; ``single`` of the questions are asked one by one. ``tokenizer`` is that of `VLLM`.
    """

    url: str
    questions: Sequence[str]
    empty: bool
    rounds: int
    single: int
    tokenizer: str | None = None

    def run(self, benchmark: str, case: str, build: Build) -> list[Row]:
        """The rows of ``case``, for the pipeline that ``build`` makes around a model."""
        sent = self._record(build)
        print(f"{case}: {len(self.questions)} questions led to {len(sent)} requests", flush=True)
        our_times, bare_times = [], []
        for _ in range(self.rounds):
            our_times.append(self._timed(f"{case}: pipeline", lambda: self._together(build)))
            bare_times.append(self._timed(f"{case}: bare client", lambda: bare(self.url, sent)))
        few = self.questions[:: max(1, len(self.questions) // self.single)][: self.single]
        slow = len(few) / self._timed(f"{case}: {len(few)} questions one by one", lambda: self._alone(build, few))
        fast, ceiling = len(self.questions) / min(our_times), len(self.questions) / min(bare_times)
        return [
            Row(benchmark, case, "qps", fast, "1/s", "bare client", ceiling),
            Row(benchmark, case, "ceiling_ratio", fast / ceiling, "", "bare client"),
            Row(benchmark, case, "requests", len(sent) / len(self.questions), "/question"),
            Row(benchmark, case, "qps_alone", slow, "1/s"),
            Row(benchmark, case, "speedup", fast / slow, "×", "one by one"),
        ]

    def _record(self, build: Build) -> list[Sent]:
        """What the pipeline sends. This also warms up retrieval and server."""
        recorder = Recorder()
        model = self._model()
        model._http.transport = recorder
        _ask(build(model), self.questions)
        run_sync(model.aclose())
        return recorder.sent

    def _together(self, build: Build) -> float:
        model = self._model()  # a new one, which has seen no prompt yet
        seconds = _ask(build(model), self.questions)
        run_sync(model.aclose())
        return seconds

    def _alone(self, build: Build, questions: Sequence[str]) -> float:
        model = self._model()
        pipe = build(model)
        start = time.perf_counter()
        for question in questions:
            pipe.run(question)
        seconds = time.perf_counter() - start
        run_sync(model.aclose())
        return seconds

    def _model(self) -> VLLM:
        return VLLM(self.url, timeout=TIMEOUT, tokenizer=self.tokenizer)

    def _timed(self, label: str, work: Callable[[], float]) -> float:
        if self.empty:
            forget(self.url)
        seconds = work()
        print(f"{label}: {seconds:.1f} s", flush=True)  # a pass takes minutes on a CPU
        return seconds


def _ask(pipe: Pipeline, questions: Sequence[str]) -> float:
    """Seconds that ``questions`` take with 64 in flight. Raises the error of the first that failed."""
    start = time.perf_counter()
    runs = pipe.map(questions, in_flight=IN_FLIGHT)
    seconds = time.perf_counter() - start
    for run in runs:
        _ = run.value
    return seconds


def bare(url: str, requests: Sequence[Sent]) -> float:
    """Seconds from the first byte sent to the last answer read when all ``requests`` are sent at once."""

    async def replay() -> float:
        async with AsyncExitStack() as stack:
            tls, headers = httpx.create_ssl_context(), {"Content-Type": "application/json"}
            made = [httpx.AsyncClient(verify=tls, timeout=TIMEOUT, headers=headers) for _ in range(-(-len(requests) // POOL))]
            clients = [await stack.enter_async_context(client) for client in made]
            start = time.perf_counter()
            await asyncio.gather(*(_send(clients[i // POOL], url, sent) for i, sent in enumerate(requests)))
            return time.perf_counter() - start

    return asyncio.run(replay())


async def _send(client: httpx.AsyncClient, url: str, sent: Sent) -> None:
    """Read the answer to its end, or to where it was left."""
    events = 0
    async with client.stream("POST", f"{url}/completions", content=sent.body) as answer:
        answer.raise_for_status()
        async for chunk in answer.aiter_raw():
            events += chunk.count(EVENT)
            if sent.left is not None and events >= sent.left:
                break


def forget(url: str) -> None:
    """Empty the server's prefix cache."""
    root = url.removesuffix("/v1")
    for _ in range(50):
        answer = httpx.post(f"{root}/reset_prefix_cache", timeout=30.0)
        if answer.status_code == 404:
            raise ConfigError(f"{root} cannot empty its prefix cache: start it with VLLM_SERVER_DEV_MODE=1, or measure with --cache warm")
        if answer.raise_for_status().json()["success"]:
            return
        time.sleep(0.1)  # the last request's blocks are freed a moment after its answer
    raise ConfigError(f"{root} does not empty its prefix cache; is somebody else using the server?")


@contextmanager
def server(url: str | None) -> Iterator[str]:
    """The server at ``url``, or one that runs while the block lasts, with room for all questions in flight at once."""
    if url is not None:
        yield url.rstrip("/")
        return
    os.environ.setdefault("VLLM_SERVER_DEV_MODE", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "4")  # GiB for 90,000 tokens; the default holds hardly 64 prompts
    with serve_vllm() as started:
        yield started
