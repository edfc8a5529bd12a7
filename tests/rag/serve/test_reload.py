from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from rag.core.errors import ConfigError, ModelUnavailable
from rag.core.pipeline import Pipeline
from rag.serve.app import create_app
from rag.serve.reload import Reload
from rag.serve.settings import Limits, Uploads
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from tests.rag.serve.parts import Scripted, pipeline

ASKED = {"model": "graft", "messages": [{"role": "user", "content": "How long?"}]}


class Configured:
    """What the next reload builds."""

    def __init__(self, first: Pipeline) -> None:
        self.now = first

    def __call__(self) -> tuple[Pipeline, None]:
        return self.now, None


class Running:
    """An application that is started, in this event loop; signals reach it."""

    def __init__(self, first: Pipeline, **options: Any) -> None:
        self.source = Configured(first)
        self.app = create_app(first, source=self.source, **options)
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://localhost")

    async def __aenter__(self) -> Running:
        self._lifespan = self.app.router.lifespan_context(self.app)
        await self._lifespan.__aenter__()
        await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.http.aclose()
        await self._lifespan.__aexit__(None, None, None)

    async def hup(self, now: Pipeline, caplog: pytest.LogCaptureFixture) -> str:
        """Reload to ``now``; what the log says."""
        caplog.clear()
        caplog.set_level(logging.INFO, "graft.serve")
        self.source.now = now
        os.kill(os.getpid(), signal.SIGHUP)
        async with asyncio.timeout(10):
            while not (said := [record.getMessage() for record in caplog.records if "reloaded" in record.getMessage()]):
                await asyncio.sleep(0.01)
        assert len(said) == 1
        return said[0]

    async def answer(self) -> str:
        reply = await self.http.post("/v1/chat/completions", json=ASKED)
        assert reply.status_code == 200, reply.text
        text: str = reply.json()["choices"][0]["message"]["content"]
        return text


def test_running_questions_end_where_they_began_and_new_ones_go_to_the_new_pipeline(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        gate = asyncio.Event()

        async def slow(question: str) -> str:
            await gate.wait()
            return "old"

        async def new(question: str) -> str:
            return "new"

        async with Running(Pipeline().add("slow", slow), limits=Limits(running=2, waiting=0)) as server:
            first = asyncio.create_task(server.answer())
            await asyncio.sleep(0.05)
            assert await server.hup(Pipeline().add("quick", new), caplog) == "the configuration was reloaded"
            assert await server.answer() == "new"
            second = asyncio.create_task(server.answer())  # the queue is still the same one
            gate.set()
            assert (await first, await second) == ("old", "new")
            assert (await server.http.get("/v1/pipelines")).json()["data"][0]["nodes"][0]["name"] == "quick"
            assert 'node="quick"' in (await server.http.get("/metrics")).text
            assert (await server.http.get("/openapi.json")).status_code == 200

    asyncio.run(run())


def test_what_does_not_answer_is_not_taken(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    async def run() -> None:
        async with Running(pipeline(Scripted("old [1]."))) as server:
            down = await server.hup(pipeline(Scripted(error=ModelUnavailable("http://10.0.0.7 is down"))), caplog)
            assert down == "the configuration was not reloaded, the old one goes on: http://10.0.0.7 is down"
            gone = await server.hup(Pipeline().add("search", BM25(Corpus(tmp_path / "nowhere"))), caplog)
            assert "there is no corpus here" in gone
            assert "not reloaded" in await server.hup(Pipeline(), caplog)
            assert await server.answer() == "old [1]."
            assert (await server.http.get("/readyz")).status_code == 200

    asyncio.run(run())


def test_the_corpus_of_uploads_stays(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    ours, other = (Corpus.create(tmp_path / name, encoder=None) for name in ("ours", "other"))

    async def run() -> None:
        first = Pipeline().add("search", BM25(ours))
        async with Running(first, uploads=Uploads(ours, tmp_path / "spool")) as server:
            said = await server.hup(Pipeline().add("search", BM25(other)), caplog)
            assert "uploads are written to" in said
            assert "searches none" in await server.hup(pipeline(), caplog) or "searches None" in caplog.text
            assert await server.hup(Pipeline().add("find", BM25(Corpus(tmp_path / "ours"))), caplog) == "the configuration was reloaded"

    asyncio.run(run())


def test_a_signal_during_a_reload_is_followed_by_one_more() -> None:
    async def run() -> None:
        taken: list[str] = []
        files = iter(["first", "second", "third"])
        gate = asyncio.Event()

        async def take(given: Any, retriever: Any) -> None:
            await gate.wait()
            taken.append(given)

        task = asyncio.create_task(Reload(lambda: (next(files), None), take).follow())  # type: ignore[arg-type, return-value]
        await asyncio.sleep(0.02)
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
        gate.set()
        await asyncio.sleep(0.1)
        assert taken == ["first", "second"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert signal.getsignal(signal.SIGHUP) in (signal.SIG_DFL, None)

    asyncio.run(run())


def test_what_takes_too_long_or_breaks_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def never(given: Any, retriever: Any) -> None:
        await asyncio.Event().wait()

    async def broken(given: Any, retriever: Any) -> None:
        raise ValueError("a\nb")

    async def refused(given: Any, retriever: Any) -> None:
        raise ConfigError("no")

    async def run() -> list[bool]:
        return [await Reload(lambda: (pipeline(), None), take, seconds=0.05).once() for take in (never, broken, refused)]

    assert asyncio.run(run()) == [False] * 3
    reasons = [record.getMessage().partition("goes on: ")[2] for record in caplog.records]
    assert reasons == ["the new one did not answer within 0.05 s", "ValueError: a b", "no"]
