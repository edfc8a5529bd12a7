"""What an adapter of a domain gains: the embedded model reads XQuAD's articles bare, and with a LoRA trained on other articles.

    python -m benchmarks.domain_gain --data ../shared/data

The articles of the questions asked are held out of training. Cases: ``closed``, the model alone (`Direct`); ``rag``, two passages that BM25
finds among all 240 (`Cited`); ``gold``, the question's own paragraph instead; ``rag+lora`` and ``gold+lora``, the same pipelines, but that
the model wears the reader. Training and answers are kept in ``--runs`` as they come: a stopped benchmark goes on with the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from adapters.reparameterised.lora.config import LoRA
from adapters.training.options import PRECISIONS, Options
from benchmarks.domain_data import GoldPassage, Lessons, split
from benchmarks.domain_training import Figures, Reader
from benchmarks.kept import digest
from benchmarks.report import Row, parser, report
from generators.cited import Cited
from generators.direct import Direct
from generators.models.local import Local
from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.core.protocols import LanguageModel
from rag.evaluate.compare import Comparison, Estimate, compare, mean_of
from rag.evaluate.corpora import index_passages
from rag.evaluate.datasets import load
from rag.evaluate.identity import data_key
from rag.evaluate.runner import evaluate
from rag.evaluate.types import DataSet
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus

NAME = "domain_gain"
MAX_TOKENS = 48
"""Tokens of an answer, as in `benchmarks.generators`."""
IN_FLIGHT = 8
"""Prompts of a batch, for both sides: more take more memory, and no less time on two cores."""
PROMPT_TOKENS = 1536
"""Of a training prompt and its answer; no prompt of two paragraphs is longer."""
CASES = ("closed", "rag", "gold", "gold+lora", "rag+lora")
WORN = "+lora"
SCORES = {"em": "exact_match", "f1": "f1", "match": "match", "gold_shown": "all_gold@10"}
"""Our names, which the tables have, and those of `rag.evaluate`."""
GAINS = ("em", "f1")
SAVED = 4
"""Steps between two checkpoints: about a minute on two cores."""
TOLD = 20
"""Questions between two lines of progress."""


class Asked:
    """The five pipelines over ``corpus``, which show ``passages`` passages of a search, asked the questions of ``data``.

    Outcomes lie below ``runs``, in a folder of their own for each selection of questions, model and number of passages.
    """

    def __init__(self, data: DataSet, corpus: Corpus, model: str, passages: int, runs: Path) -> None:
        self._data = data
        self._corpus = corpus
        self._model = Local(model, max_batch=IN_FLIGHT)
        self._passages = passages
        self._gold = {question.question: question.gold[0] for question in data.questions}
        self._folder = runs / f"answers-{digest([data_key(data), model, passages, MAX_TOKENS])}"

    def compared(self, reader: Reader) -> Comparison:
        """Ask what was not asked yet, and score all."""
        outcomes = {}
        for case in CASES:
            plain = case.removesuffix(WORN)
            worn = case != plain
            pipe = self._pipeline(plain, self._model.with_adapter(str(reader.adapter)) if worn else self._model)
            name = f"{case}-{reader.name}" if worn else case
            outcomes[case] = evaluate(pipe, self._data, folder=self._folder, name=name, in_flight=IN_FLIGHT, on_progress=_progress(case))
        return compare(self._data, outcomes, list(SCORES.values()))

    def _pipeline(self, case: str, model: LanguageModel) -> Pipeline:
        if case == "closed":
            return Pipeline().add("answer", Direct(model, MAX_TOKENS))
        search: Any = BM25(self._corpus, k=self._passages) if case == "rag" else GoldPassage(self._corpus, self._gold)
        answer = Cited(model, self._passages, MAX_TOKENS)
        return Pipeline().add("search", search).add("answer", answer).connect("search", "answer.retriever")


def _progress(case: str) -> Callable[[int, int, int], None]:
    def tell(finished: int, failed: int, total: int) -> None:
        if finished % TOLD == 0 or finished == total:
            print(f"{case}: {finished} of {total} asked{f', {failed} failed' if failed else ''}", flush=True)

    return tell


def rows(comparison: Comparison, figures: Figures) -> list[Row]:
    """Scores in percent with their intervals, what wearing the reader gains in points, and what training it took."""
    found = [row for case in CASES for row in (*_scores(case, comparison), *_gains(case, comparison))]
    trained = {
        "examples": (figures.examples, ""),
        "steps": (figures.steps, ""),
        "s_per_step": (figures.seconds_per_step, "s"),
        "first_loss": (figures.first_loss, "nats/token"),
        "last_loss": (figures.last_loss, "nats/token"),
        "trained_share": (100 * figures.trained_share, "%"),
        "base_unchanged": (float(figures.base_unchanged), ""),
    }
    return found + [Row(NAME, "train", metric, value, unit) for metric, (value, unit) in trained.items()]


def _scores(case: str, comparison: Comparison) -> Iterator[Row]:
    result = comparison.result(case)
    yield Row(NAME, case, "failed", result.failed, "questions")
    for metric, known in SCORES.items():
        mean = result.means[known]
        if mean is not None:
            yield from _with_ends(case, metric, mean, "%")


def _gains(case: str, comparison: Comparison) -> Iterator[Row]:
    """Over the same questions, bare and with the reader: a question's two scores stay together. None for a bare case."""
    if not case.endswith(WORN):
        return
    bare, worn = comparison.result(case.removesuffix(WORN)).scores, comparison.result(case).scores
    for metric in GAINS:
        pairs = zip(bare[SCORES[metric]], worn[SCORES[metric]], strict=True)
        differences = [after - before for before, after in pairs if before is not None and after is not None]
        mean = mean_of(differences, comparison.seed)
        if mean is not None:
            yield from _with_ends(case, f"{metric}_gain", mean, "points")


def _with_ends(case: str, metric: str, mean: Estimate, unit: str) -> Iterator[Row]:
    for name, value in ((metric, mean.mean), (f"{metric}_min", mean.low), (f"{metric}_max", mean.high)):
        yield Row(NAME, case, name, 100 * value, unit)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    known = parser(__doc__ or "")
    known.add_argument("--data", type=Path, required=True, help="folder with xquad/")
    known.add_argument("--model", default="smollm2", help="the model that reads; a folder or a hub id")
    known.add_argument("--articles", type=int, default=12, help="how many of the 48 articles are held out of training")
    known.add_argument("--questions", type=int, default=150, help="how many of their questions are asked")
    known.add_argument("--passages", type=int, default=2, help="passages of a search")
    known.add_argument("--steps", type=int, default=95, help="steps of training, each over --batch x --accumulate examples")
    known.add_argument("--batch", type=int, default=1, help="examples computed at once; with 1 the process takes 4 GB")
    known.add_argument("--accumulate", type=int, default=8, help="batches of a step")
    known.add_argument("--lr", type=float, default=1e-3)
    known.add_argument("--rank", type=int, default=16, help="of the LoRA, on all linear layers; its alpha is twice that")
    known.add_argument("--searched", type=float, default=0.4, help="share of the training prompts that show what a search finds")
    known.add_argument("--precision", choices=PRECISIONS, default="float32", help="of training; answers are written in float32")
    known.add_argument("--seed", type=int, default=0, help="of the articles, the questions and training")
    known.add_argument("--runs", type=Path, default=Path("results/domain_gain"), help="folder that keeps the reader and the answers")
    return known.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    given = options(arguments)
    data = load(_existing(given.data / "xquad" / "xquad.en.json"))
    parts = split(data, given.articles, given.questions, given.seed)
    folder = given.runs / f"corpus-{data.fingerprint[:12]}"
    index_passages(data, folder, encoder=None)
    corpus = Corpus.open(folder)
    reader = _reader(given, Lessons(corpus, given.passages, given.searched, given.seed).lines(parts))
    figures = reader.train()
    compared = Asked(parts.asked, corpus, given.model, given.passages, given.runs).compared(reader)
    report(rows(compared, figures), given, "torch", "transformers", "peft", "accelerate", "bm25s")


def _reader(given: argparse.Namespace, lines: Iterable[str]) -> Reader:
    training = Options(
        lr=given.lr,
        steps=given.steps,
        batch=given.batch,
        accumulate=given.accumulate,
        precision=given.precision,
        seed=given.seed,
        save_every=SAVED,
        keep="last",
    )
    return Reader(given.model, lines, LoRA(given.rank, 2.0 * given.rank, targets="all"), training, PROMPT_TOKENS, given.runs)


def _existing(file: Path) -> Path:
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; --data takes the folder that holds xquad/")
    return file


if __name__ == "__main__":
    main()
