"""What a store of encoded passages saves and costs: time to the first token and answers, beside reading the same passages in full.

    python -m benchmarks.context_store --data ../shared/data

Times: passages of 256 tokens, as many as make 0.5k to 4k, in front of one question. ``ttft_s`` reads them from a store that is warm in RAM,
``ttft_disk_s`` from one that keeps nothing in memory (every passage is read from its file and checked, though the operating system may
have the file in its own cache), and ``ttft_recomputed_s`` computes 15% of their tokens again. The peer is ordinary prefill of the very same
tokens by the same model. The sides take turns; times are medians over the rounds. The cases vllm/… are the same inside one running vLLM
server (`benchmarks.context_server`), where it is installed.

Answers: questions of the XQuAD articles that `benchmarks.domain_gain` holds out (two passages of BM25) and of MuSiQue (four long ones).
Each way of reading is given the same passages in the same prompt. ``--adapter`` adds the cases of a model that wears a LoRA. Every answer
is kept in ``--runs``: a stopped benchmark goes on with the same command.

It is sized for 20 minutes on two cores: one thread of an AMD EPYC takes 22 s to answer a question of MuSiQue in the three ways, 7 s for one
of XQuAD, and encodes 250 tokens a second. An adapter takes a quarter of an hour more: its store is another one.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.context_server import ServerTimes
from benchmarks.context_ways import DISK, FULL, RECOMPUTED, STITCHED, WAYS, Asked, Ways, cut, gathered
from benchmarks.domain_data import split
from benchmarks.kept import Kept, digest
from benchmarks.report import Row, parser, report
from generators.models.stitched.encoder import LocalEncoder
from generators.passages import passage_data
from rag.core.errors import ConfigError, InputError
from rag.evaluate.compare import Comparison, Estimate, compare, mean_of
from rag.evaluate.corpora import index_passages
from rag.evaluate.datasets import load
from rag.evaluate.types import DataSet, Outcome
from retrievers.bm25 import BM25
from retrievers.context.numbers import FORMATS
from retrievers.corpus import Corpus

NAME = "context_store"
PEER = "full prefill"
XQUAD, MUSIQUE = "xquad", "musique"
HELD_OUT = 12
"""XQuAD's articles that are asked, drawn as `benchmarks.domain_gain` draws them: its reader has not seen them."""
MAX_TOKENS = 32
"""Tokens of an answer."""
WORN = "+lora"
WORN_WAYS = (FULL, STITCHED)
TIMES = {"ttft_s": STITCHED, "ttft_disk_s": DISK, "ttft_recomputed_s": RECOMPUTED}
SCORES = {"em": "exact_match", "f1": "f1"}
TOLD = 10
"""Questions between two lines of progress."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where questions come from: a file below the data folder, how many of them are asked, and passages of a search."""

    file: str
    questions: int
    passages: int


SOURCES = {XQUAD: Source("xquad/xquad.en.json", 80, 2), MUSIQUE: Source("musique_contexts/musique_s.json", 40, 4)}


def questions(name: str, data: Path, limit: int | None) -> DataSet:
    """Those of one source. Raises `InputError` if its file is not there."""
    source = SOURCES[name]
    file, number = data / source.file, limit or source.questions
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; --data takes the folder that holds xquad/ and musique_contexts/")
    return split(load(file), HELD_OUT, number, 0).asked if name == XQUAD else load(file, sample=number)


def found(name: str, data: DataSet, folder: Path) -> list[Asked]:
    """The questions with what BM25 finds for them among all passages of ``data``; the corpus lies at ``folder``."""
    index_passages(data, folder, encoder=None)
    corpus = Corpus.open(folder)
    rankings = BM25(corpus).search_batch([question.question for question in data.questions], SOURCES[name].passages)
    corpus.close()
    return [
        Asked(
            question.question,
            tuple(f"{name}/{hit.passage.id}" for hit in hits),
            tuple(passage_data(hit.passage) for hit in hits),
        )
        for question, hits in zip(data.questions, rankings, strict=True)
    ]


def lengthy(encoder: LocalEncoder, data: DataSet, lengths: Sequence[int], piece: int) -> dict[int, Asked]:
    """For each length of context in tokens: the first question behind as many passages of at most ``piece`` tokens as make it.

    Raises `ConfigError` if ``data`` have too few passages, or a length is no passage long.
    """
    most = max(lengths) // piece
    texts = [cut(encoder, passage_data(passage), piece) for passage in data.passages[:most]]
    if len(texts) < most or min(lengths) < piece:
        raise ConfigError(
            f"--contexts {lengths}: with passages of {piece} tokens (--piece) they are {piece} to {piece * len(texts)} tokens"
        )
    ids = tuple(f"piece/{digest(text)}" for text in texts)  # another --piece makes others
    return {length: Asked(data.questions[0].question, ids[: length // piece], tuple(texts[: length // piece])) for length in lengths}


class Measurement:
    """One model, bare or with an adapter; what it finds is kept in ``kept``, and times are measured again if ``anew``."""

    def __init__(self, ways: Ways, kept: Kept, anew: bool = False) -> None:
        self._ways = ways
        self._kept = kept
        self._anew = anew
        self._key = {"model": asdict(ways.encoder.identity), "dtype": ways.encoder.dtype, "numbers": ways.store.numbers.name}

    def answers(self, case: str, way: str, asked: Sequence[Asked]) -> list[str]:
        """What is answered to each question, now or before."""
        texts = []
        for number, one in enumerate(asked, start=1):
            key = {**self._key, **asdict(one), "way": way, "max_tokens": MAX_TOKENS}
            texts.append(str(self._kept.value("answer", key, partial(self._written, way, one))))
            if number % TOLD == 0 or number == len(asked):
                print(f"{case}: {number} of {len(asked)} asked", flush=True)
        return texts

    def _written(self, way: str, asked: Asked) -> str:
        return self._ways.write(way, asked, MAX_TOKENS).text

    def times(self, length: int, asked: Asked, rounds: int) -> list[Row]:
        """The rows of one length of context."""
        import torch

        prepared = self._ways.prepared(asked, 1)
        fits = prepared.passages == len(asked.ids)
        case = f"local/{length / 1024:g}k" if fits else f"local/{prepared.start / 1024:.1f}k (the window)"
        key = {**self._key, **asdict(asked), "rounds": rounds, "threads": torch.get_num_threads()}
        seconds = self._kept.value("times", key, lambda: self._ways.first_tokens(asked, rounds), anew=self._anew)
        print(f"{case}: {', '.join(f'{way} {median(values):.3f} s' for way, values in seconds.items())}", flush=True)
        return [*speed(case, seconds), *lengths(case, prepared.start, len(prepared.question))]

    def size(self) -> list[Row]:
        """What the store takes on disk."""
        info = self._ways.store.info()
        case = f"store/{info['format']}"
        rows = {"bytes_per_token": info["bytes_per_token"], "tokens": info["tokens"], "passages": info["passages"]}
        errors = {"error_keys": 100 * info["error_keys"], "error_values": 100 * info["error_values"]}
        return [
            *(Row(NAME, case, metric, value) for metric, value in rows.items()),
            *(Row(NAME, case, m, v, "%") for m, v in errors.items()),
        ]


def speed(case: str, seconds: Mapping[str, Sequence[float]]) -> list[Row]:
    """Medians of the rounds with the least and the most, beside those of full prefill; the ratio is that of each round."""
    full = seconds[FULL]
    rows = []
    for metric, way in TIMES.items():
        if way in seconds:
            rows += _with_ends(case, metric, median(seconds[way]), min(seconds[way]), max(seconds[way]), "s", median(full))
    ratios = [whole / ours for whole, ours in zip(full, seconds[STITCHED], strict=True)]
    return [*rows, *_with_ends(case, "ttft_ratio", median(ratios), min(ratios), max(ratios), "×")]


def lengths(case: str, context: int, question: int) -> list[Row]:
    """What was read, in tokens."""
    return [Row(NAME, case, "context_tokens", context), Row(NAME, case, "question_tokens", question)]


def quality(name: str, data: DataSet, asked: Sequence[Asked], sides: Mapping[str, Measurement]) -> list[Row]:
    """Scores in percent with their intervals; ``sides`` are the bare model ("") and one with an adapter (`WORN`)."""
    outcomes = {}
    for worn, side in sides.items():
        for way in WORN_WAYS if worn else WAYS:
            answers = side.answers(f"{name}/{way}{worn}", way, asked)
            outcomes[f"{way}{worn}"] = [
                Outcome(question.id, answer, retrieved=one.ids)
                for question, one, answer in zip(data.questions, asked, answers, strict=True)
            ]
    compared = compare(data, outcomes, list(SCORES.values()))
    return [row for way in outcomes for row in (*_scores(name, way, compared), *_changes(name, way, compared))]


def _scores(name: str, way: str, compared: Comparison) -> Iterator[Row]:
    result = compared.result(way)
    yield Row(NAME, f"{name}/{way}", "questions", len(result.outcomes))
    for metric, known in SCORES.items():
        yield from _estimated(f"{name}/{way}", metric, result.means[known], "%")


def _changes(name: str, way: str, compared: Comparison) -> Iterator[Row]:
    """Against the bare model that reads in full: points of F1 over the same questions, and the share of answers that are the same text."""
    if way == FULL:
        return
    full, result = compared.result(FULL), compared.result(way)
    pairs = zip(full.scores[SCORES["f1"]], result.scores[SCORES["f1"]], strict=True)
    differences = [after - before for before, after in pairs if before is not None and after is not None]
    yield from _estimated(f"{name}/{way}", "f1_change", mean_of(differences, compared.seed), "points")
    same = [float(one.answer == other.answer) for one, other in zip(full.outcomes, result.outcomes, strict=True)]
    yield from _estimated(f"{name}/{way}", "same_text", mean_of(same, compared.seed), "%")


def _estimated(case: str, metric: str, mean: Estimate | None, unit: str) -> list[Row]:
    return [] if mean is None else _with_ends(case, metric, 100 * mean.mean, 100 * mean.low, 100 * mean.high, unit)


def _with_ends(case: str, metric: str, value: float, low: float, high: float, unit: str, peer: float | None = None) -> list[Row]:
    ends = [Row(NAME, case, f"{metric}_min", low, unit), Row(NAME, case, f"{metric}_max", high, unit)]
    return [Row(NAME, case, metric, value, unit, PEER if peer is not None else "", peer), *ends]


def measure(given: argparse.Namespace) -> list[Row]:
    """All rows; times first."""
    if not given.contexts and not given.sets:
        return served(LocalEncoder(given.model, None, given.dtype, "cpu"), given)
    sets = {name: questions(name, given.data, given.limit) for name in given.sets}
    asked = {name: found(name, data, given.runs / f"corpus-{data.fingerprint[:12]}") for name, data in sets.items()}
    encoder = LocalEncoder(given.model, None, given.dtype, "cpu")
    long = lengthy(encoder, questions(MUSIQUE, given.data, 1), given.contexts, given.piece) if given.contexts else {}
    bare = _measurement(encoder, given, [*asked.values(), list(long.values())])
    rows = [row for length, one in long.items() for row in bare.times(length, one, given.rounds)] + bare.size() + served(encoder, given)
    sides = {"": bare}
    if given.adapter is not None:
        worn = LocalEncoder(given.model, given.adapter, given.dtype, "cpu")
        sides[WORN] = _measurement(worn, given, asked.values())
    return rows + [row for name, data in sets.items() for row in quality(name, data, asked[name], sides)]


def served(encoder: LocalEncoder, given: argparse.Namespace) -> list[Row]:
    """The rows of a vLLM server; none where it is not installed."""
    if not given.server or importlib.util.find_spec("vllm") is None:
        return []
    long = lengthy(encoder, questions(MUSIQUE, given.data, 1), given.server, given.piece)
    folder = given.runs / f"server-store-{digest([asdict(encoder.identity), given.dtype, given.format])}"
    ways = Ways(encoder, folder, gathered([list(long.values())]), given.format)
    times = ServerTimes(ways, folder, given.model, given.dtype, Kept(given.runs / "kept"), given.speed)
    rows = []
    cases = {f"vllm/{length / 1024:g}k": one for length, one in long.items()}
    for case, (prompt, seconds) in times.all_of(cases, given.rounds).items():
        print(f"{case}: {', '.join(f'{way} {median(values):.3f} s' for way, values in seconds.items())}", flush=True)
        rows += [*speed(case, seconds), *lengths(case, prompt.borders[-1], prompt.question)]
    return rows


def _measurement(encoder: LocalEncoder, given: argparse.Namespace, asked: Iterable[Sequence[Asked]]) -> Measurement:
    folder = given.runs / f"store-{digest([asdict(encoder.identity), given.dtype, given.format])}"
    return Measurement(Ways(encoder, folder, gathered(asked), given.format), Kept(given.runs / "kept"), given.speed)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    known = parser(__doc__ or "")
    known.add_argument("--data", type=Path, required=True, help="folder with xquad/ and musique_contexts/")
    known.add_argument("--runs", type=Path, default=Path(f"results/{NAME}"), help="folder that keeps the store, the answers and the times")
    known.add_argument("--model", default="smollm2", help="smollm2, a folder, or a Hugging Face id; on the CPU")
    known.add_argument("--adapter", help="folder or registry name of a LoRA: adds the cases full+lora and stitched+lora")
    known.add_argument("--dtype", default="float32", help="of the model")
    known.add_argument("--format", choices=list(FORMATS), default="float16", help="of the numbers in the store")
    known.add_argument("--sets", nargs="*", choices=list(SOURCES), default=list(SOURCES), help="whose questions are asked")
    known.add_argument("--limit", type=int, help="only so many questions of each set")
    known.add_argument("--contexts", type=int, nargs="*", default=[512, 1024, 2048, 4096], help="lengths of context to time, in tokens")
    known.add_argument("--server", type=int, nargs="*", default=[1024, 2560], help="the same inside a vLLM server, if it is installed")
    known.add_argument("--piece", type=int, default=256, help="tokens of a passage of these contexts")
    known.add_argument("--rounds", type=int, default=5, help="times of each way at each length, after one to warm up")
    known.add_argument("--speed", action="store_true", help="measure the times anew, though they are kept")
    given = known.parse_args(arguments)
    if min(given.piece, given.rounds, given.limit or 1, *given.contexts, *given.server) < 1 or given.limit == 0:
        known.error("--limit, --contexts, --server, --piece and --rounds are at least 1")
    if not given.contexts and not given.sets and not given.server:
        known.error("with neither --contexts nor --server nor --sets there is nothing to measure")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    given = options(arguments)
    report(measure(given), given, "torch", "transformers", "peft", "safetensors", "bm25s")


if __name__ == "__main__":
    main()
