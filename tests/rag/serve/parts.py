"""Small stand-ins for a model and a retriever."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import uvicorn
from fastapi import APIRouter, FastAPI

from generators.cited import Cited
from rag.core.batcher import Batcher
from rag.core.errors import GraftError
from rag.core.pipeline import Pipeline
from rag.core.trace import count
from rag.core.types import Filter, Generation, Hit, Passage, Prompt, Sampling, Token
from rag.serve.admission import Admission
from rag.serve.app import create_app
from rag.serve.asking import Asking, Work
from rag.serve.breaker import Breaker
from rag.serve.health import Health
from rag.serve.observe.metrics import Metrics
from rag.serve.observe.requests import Observed
from rag.serve.service import Service

TEXT = "A suit may be worn outside for 90 minutes [1]. 服装 ok."
PASSAGE = Passage("safety/suits.md:0", "A suit may be worn outside for 90 minutes.", "safety/suits.md", "Suits", 10, 52, {"lang": "en"})


class Scripted:
    """Writes ``text`` word by word. ``fails_at``: raise ``error`` before the piece of that number; ``hangs_at``: wait there for ever."""

    def __init__(
        self, text: str = TEXT, error: GraftError | None = None, fails_at: int = 0, hangs_at: int = -1, offers: Iterable[str] = ()
    ) -> None:
        self.text = text
        self.error = error
        self.fails_at = fails_at
        self.hangs_at = hangs_at
        self.cancelled = 0
        self._offers = frozenset(offers)
        self.prompts: list[Prompt] = []
        self.samplings: list[Sampling] = []

    @property
    def name(self) -> str:
        return "scripted"

    @property
    def window(self) -> int:
        return 4096

    @property
    def capabilities(self) -> frozenset[str]:
        return self._offers

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        pieces = [piece async for piece in self.astream(prompt, sampling)]
        assert isinstance(pieces[-1], Generation)
        return pieces[-1]

    async def astream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> AsyncIterator[str | Generation]:
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        all_words = self.text.split(" ")
        words = all_words[: sampling.max_tokens]
        for number, word in enumerate(words):
            if self.error is not None and number == self.fails_at:
                raise self.error
            if number == self.hangs_at:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            yield word if number == 0 else f" {word}"
        count(calls=1, prompt_tokens=40, generated_tokens=len(words))
        finish: Literal["stop", "length"] = "stop" if words == all_words else "length"
        yield Generation(" ".join(words), self._tokens(words, sampling), finish, 40, len(words), "scripted")

    def _tokens(self, words: list[str], sampling: Sampling) -> tuple[Token, ...]:
        """Each with a probability of a half; their offsets are of no interest here."""
        return () if sampling.logprobs is None else tuple(Token(word, -1, -math.log(2), 0, 0) for word in words)

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        raise NotImplementedError

    async def acount(self, prompt: Prompt) -> int:
        if self.error is not None:
            raise self.error
        return 40

    async def aencode(self, text: str) -> list[int]:
        raise NotImplementedError


class OneShelf:
    """A corpus of one passage, and the retriever over it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.filters: list[Filter | None] = []

    def __len__(self) -> int:
        return 1

    def verify(self) -> None:
        """What makes it a corpus for the health check."""

    async def run(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        self.filters.append(filter)
        if self.error is not None:
            raise self.error
        return [Hit(PASSAGE, 2.5, 1, "bm25")]


def pipeline(model: Scripted | None = None, shelf: OneShelf | None = None) -> Pipeline:
    """search, called by answer."""
    pipe = Pipeline()
    pipe.add("search", OneShelf() if shelf is None else shelf).add("answer", Cited(model or Scripted()))
    return pipe.connect("search", "answer.retriever")


class Letters:
    """An encoder: the unit vector [26] of how often each letter occurs, with one letter more for a query. It keeps what it was asked."""

    identity = "letters"
    dim = 26

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def encode(self, texts: list[str], kind: Literal["query", "passage"] = "passage") -> np.ndarray:
        self.seen += [(kind, text) for text in texts]
        counts = np.array([[text.lower().count(chr(97 + letter)) for letter in range(26)] for text in texts], np.float32)
        counts[:, 16 if kind == "query" else 25] += 0.5
        return np.asarray(counts / np.linalg.norm(counts, axis=1, keepdims=True), np.float32)


class Gathering:
    """The same, of all callers in flight at once. ``gate``: no batch begins before it is set."""

    identity = "gathering letters"
    dim = 26

    def __init__(self) -> None:
        self.letters = Letters()
        self.gate = threading.Event()
        self.begun = threading.Event()
        self._batcher: Batcher[tuple[str, Literal["query", "passage"]], np.ndarray] = Batcher(self._work, key=lambda pair: pair[1])

    def encode(self, texts: list[str], kind: Literal["query", "passage"] = "passage") -> np.ndarray:
        raise AssertionError("an encoder that gathers is asked for one text at a time")

    async def aencode(self, text: str, kind: Literal["query", "passage"] = "passage") -> np.ndarray:
        return await self._batcher((text, kind))

    def _work(self, pairs: list[tuple[str, Literal["query", "passage"]]]) -> list[np.ndarray]:
        self.begun.set()
        assert self.gate.wait(20)
        return list(self.letters.encode([text for text, _ in pairs], pairs[0][1]))


def work(seconds: float = 60.0, running: int = 64, waiting: int = 128) -> Work:
    """A queue for what asks no pipeline."""
    return Work(Admission(running, waiting), seconds)


def service(pipelines: dict[str, Pipeline]) -> Service:
    """What the routes that ask a pipeline share."""
    return Service(pipelines, None, Health(pipelines), Asking(Admission(), Breaker, 60.0, 5.0), work())


def app_of(*routers: APIRouter) -> FastAPI:
    """The routers behind the server's own handlers of errors."""
    app = FastAPI(openapi_url=None, exception_handlers=create_app(pipeline()).exception_handlers)
    app.add_middleware(Observed, metrics=Metrics({"graft": ["search", "answer"]}))
    for router in routers:
        app.include_router(router)
    return app


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The address of a real server of ``app``, in a thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


def bad_json(asked: dict[str, Any], text: str, number: str) -> dict[str, bytes]:
    """Bodies that are no JSON or no text, or try to exhaust a parser, by what is wrong. ``text``: a field of ``asked`` that takes text;
    ``number``: one that takes a number."""
    whole = json.dumps(asked)

    def with_(field: str, value: bytes) -> bytes:
        return (
            json.dumps({name: kept for name, kept in asked.items() if name != field})[:-1].encode()
            + f', "{field}": '.encode()
            + value
            + b"}"
        )

    return {
        "nothing": b"",
        "half": whole[:-1].encode(),
        "two": (whole + whole).encode(),
        "a list": b"[]",
        "null": b"null",
        "not utf-8": with_(text, b'"\xff"'),
        "a lone surrogate": with_(text, b'"\\ud800"'),
        "a lone surrogate in a name": whole[:-1].encode() + b', "\\udfff": 1}',
        "NUL": with_(text, b'"a\\u0000b"'),
        "a bare NUL": with_(text, b'"a\0b"'),
        "NaN": with_(number, b"NaN"),
        "Infinity": with_(number, b"-Infinity"),
        "1e999": with_(number, b"1e999"),
        "5,000 digits": with_(number, b"9" * 5_000),
        "deep": with_(text, b"[" * 100_000),
        "deep but closed": with_(text, b"[" * 100_000 + b"]" * 100_000),
        "a huge list": with_(text, b"[" + b'"",' * 200_000 + b'""]'),
        "a huge list of numbers": with_(text, b"[" + b"1," * 400_000 + b"1]"),
        "a huge number of names": whole[:-1].encode() + b"".join(b', "x%d": 1' % number for number in range(50_000)) + b"}",
    }
