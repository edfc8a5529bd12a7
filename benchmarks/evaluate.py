"""Many questions in flight against a real vLLM server, beside what the server itself can do with the very same requests.

    python -m benchmarks.evaluate

`Cited` answers questions about the handbook through `Pipeline.map`. A first pass records what it sends to ``/v1/completions`` (token ids
and sampling); the ceiling is a bare client that sends these bodies again, all at once. Both take turns, best of ``--rounds`` each, then
the pipeline answers some of the questions one by one. All passes find the server's prefix cache in the same state: with ``--cache warm``
it holds every prompt, so that the server is at its fastest and what the client costs shows most; with ``--cache empty`` it is as new
questions find it. Reading prompts is bound by arithmetic, so on a CPU batches speed up the warm case more than the empty one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.report import Row, parser, report
from generators.cited import Cited
from generators.models.server import serve_vllm
from generators.models.vllm import VLLM
from rag.core.errors import ConfigError, CorpusError
from rag.core.pipeline import Pipeline
from rag.core.sync import run_sync
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from retrievers.dense import Dense
from retrievers.fuse import Fuse
from retrievers.readers import Skipped, list_files, read_files

HANDBOOK = Path(__file__).parents[1] / "examples" / "handbook"
IN_FLIGHT = 64
MAX_TOKENS = 48
POOL = 8
"""Requests that share a client: httpcore looks through all connections of a client for each request, so one for all would be slow."""
TIMEOUT = 600.0
"""Seconds without a byte. A request that waits in the server's queue until all others are done is slow, not lost."""


class Recorder(httpx.AsyncBaseTransport):
    """The network, with a copy of every body that goes to ``/v1/completions``."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._network = httpx.AsyncHTTPTransport(limits=httpx.Limits(max_connections=IN_FLIGHT))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Pass ``request`` on."""
        if request.url.path.endswith("/v1/completions"):
            self.bodies.append(await request.aread())
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._network.aclose()


def handbook_questions(number: int) -> list[str]:
    """``number`` questions; a repeated one is numbered anew, so that no two are the same."""
    lines = (HANDBOOK / "questions.jsonl").read_text("utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    asked = [(i // len(questions), questions[i % len(questions)]) for i in range(number)]
    return [f"Once more ({turn}): {question}" if turn else question for turn, question in asked]


def handbook_corpus(folder: Path, encoder: str | None) -> Corpus:
    """The handbook, indexed below ``folder``."""
    corpus = Corpus.create(folder / (encoder or "sparse"), encoder=encoder)
    skipped: list[Skipped] = []
    corpus.add(read_files(list_files(HANDBOOK / "docs"), skipped.append))
    if skipped:
        raise CorpusError(f"files of the handbook could not be read: {skipped}")
    return corpus


def pipeline(corpus: Corpus, model: VLLM) -> Pipeline:
    """BM25, fused with dense search if the corpus has vectors, and `Cited`."""
    answer = Cited(model, max_tokens=MAX_TOKENS)
    if not corpus.dim:
        return Pipeline().add("search", BM25(corpus)).add("answer", answer).connect("search", "answer.retriever")
    pipe = Pipeline().add("sparse", BM25(corpus, k=50)).add("dense", Dense(corpus, k=50)).add("fuse", Fuse(k=4)).add("answer", answer)
    return pipe.connect("sparse", "fuse").connect("dense", "fuse").connect("fuse", "answer.retriever")


def record(corpus: Corpus, url: str, questions: Sequence[str]) -> list[bytes]:
    """The bodies that the pipeline sends, one for each question. This also warms up retrieval and server."""
    recorder = Recorder()
    model = VLLM(url, timeout=TIMEOUT, retries=0)
    model._http.transport = recorder
    ours(pipeline(corpus, model), questions)
    run_sync(model.aclose())
    if len(recorder.bodies) != len(questions):
        raise ConfigError(f"{len(questions)} questions led to {len(recorder.bodies)} completions; the ceiling needs one for each")
    return recorder.bodies


def ours(pipe: Pipeline, questions: Sequence[str]) -> float:
    """Seconds that ``questions`` take with 64 in flight. Raises the error of the first that failed."""
    start = time.perf_counter()
    runs = pipe.map(questions, in_flight=IN_FLIGHT)
    seconds = time.perf_counter() - start
    for run in runs:
        _ = run.value
    return seconds


def alone(pipe: Pipeline, questions: Sequence[str]) -> float:
    """Seconds that ``questions`` take one by one."""
    start = time.perf_counter()
    for question in questions:
        pipe.run(question)
    return time.perf_counter() - start


def bare(url: str, bodies: Sequence[bytes]) -> float:
    """Seconds from the first byte sent to the last answer read when all ``bodies`` are sent at once."""

    async def replay() -> float:
        async with AsyncExitStack() as stack:
            tls, headers = httpx.create_ssl_context(), {"Content-Type": "application/json"}
            made = [httpx.AsyncClient(verify=tls, timeout=TIMEOUT, headers=headers) for _ in range(-(-len(bodies) // POOL))]
            clients = [await stack.enter_async_context(client) for client in made]
            start = time.perf_counter()
            answers = await asyncio.gather(*(clients[i // POOL].post(f"{url}/completions", content=body) for i, body in enumerate(bodies)))
            seconds = time.perf_counter() - start
        for answer in answers:
            answer.raise_for_status()
        return seconds

    return asyncio.run(replay())


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


class Race:
    """The passes over one set of questions against the server at ``url``; ``empty`` says that each begins with an empty prefix cache."""

    def __init__(self, url: str, questions: Sequence[str], empty: bool) -> None:
        self.url = url
        self.questions = questions
        self.empty = empty

    def run(self, case: str, corpus: Corpus, rounds: int, single: int) -> list[Row]:
        """One case: recorded, raced against the bare client, and run one by one over ``single`` questions spread over all."""
        bodies = record(corpus, self.url, self.questions)
        model = VLLM(self.url, timeout=TIMEOUT, retries=0)
        pipe = pipeline(corpus, model)
        our_times, bare_times = [], []
        for _ in range(rounds):
            our_times.append(self._timed(f"{case}: pipeline", lambda: ours(pipe, self.questions)))
            bare_times.append(self._timed(f"{case}: bare client", lambda: bare(self.url, bodies)))
        few = self.questions[:: max(1, len(self.questions) // single)][:single]
        slow = len(few) / self._timed(f"{case}: {single} questions one by one", lambda: alone(pipe, few))
        run_sync(model.aclose())
        fast, ceiling = len(self.questions) / min(our_times), len(self.questions) / min(bare_times)
        return [
            Row("evaluate", case, "qps", fast, "1/s", "bare client", ceiling),
            Row("evaluate", case, "ceiling_ratio", fast / ceiling, "", "bare client"),
            Row("evaluate", case.replace(f"in_flight={IN_FLIGHT}", "in_flight=1"), "qps", slow, "1/s"),
            Row("evaluate", case, "speedup", fast / slow, "×", "one by one"),
        ]

    def _timed(self, label: str, work: Callable[[], float]) -> float:
        if self.empty:
            forget(self.url)
        seconds = work()
        print(f"{label}: {seconds:.1f} s", flush=True)  # a pass takes minutes on a CPU
        return seconds


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


def options() -> Any:
    """The command line."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--url", help="a running vLLM server, with its /v1; one is started if not given")
    arguments.add_argument("--questions", type=int, default=64, help="questions of one pass")
    arguments.add_argument("--single", type=int, default=16, help="how many of them are asked one by one")
    arguments.add_argument("--rounds", type=int, default=2, help="passes of each side; the best counts")
    arguments.add_argument("--cache", choices=("empty", "warm"), default="warm", help="the server's prefix cache as a pass begins")
    arguments.add_argument("--hybrid", action=argparse.BooleanOptionalAction, default=True, help="a second case, with dense search too")
    given = arguments.parse_args()
    if min(given.questions, given.single, given.rounds) < 1 or given.single > given.questions:
        arguments.error("--questions, --single and --rounds are at least 1, and --single is at most --questions")
    return given


def main() -> None:
    """Print the table."""
    given = options()
    questions = handbook_questions(given.questions)
    with tempfile.TemporaryDirectory() as folder:
        cases = {f"in_flight={IN_FLIGHT}": handbook_corpus(Path(folder), None)}
        if given.hybrid:
            cases[f"in_flight={IN_FLIGHT},hybrid"] = handbook_corpus(Path(folder), "minilm")
        with server(given.url) as url:
            race = Race(url, questions, given.cache == "empty")
            rows = [row for case, corpus in cases.items() for row in race.run(case, corpus, given.rounds, given.single)]
    report(rows, given.json)


if __name__ == "__main__":
    main()
