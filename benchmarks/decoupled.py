"""Decoupled contexts on SciFact: does a decoder that never saw them read stored contexts, and what does storing them save?

    python -m benchmarks.decoupled --data ../shared/data

A small T5 is trained here from nothing (`generators.decoupled`): the decoder gets an abstract's title and has to write one half of the
abstract; the encoder gets, each by itself, pieces of the other half and one piece of another abstract. Abstracts that are held out are then
predicted from a store of their pieces, with their own ones (``own``), with another abstract's in their place (``others``) and with none
(``none``); a tenth of the training steps has none either. Perplexity is per token of this model's own tokenizer; intervals are bootstraps
over abstracts. Times are of one abstract: its pieces from the store, warm in RAM, beside encoding them anew.

It is sized for 15 minutes of training on two quiet cores, and two minutes for the rest. One thread of an AMD EPYC that had other work too
took 0.45 s of its time for a step of 8 examples, 3,700 tokens; two quiet ones should take about 0.25 s, which makes 3,500 steps: each
example three times.
The checkpoints, the model, its store and what was found are kept in ``--runs``: a stopped benchmark goes on with the same command.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from adapters.training.journal import Event, Journal
from benchmarks.data import scifact
from benchmarks.files import write_whole
from benchmarks.kept import Kept, digest
from benchmarks.report import Row, parser, report
from generators.decoupled.batches import Example
from generators.decoupled.encoder import DecoupledEncoder
from generators.decoupled.memory import logprobs, remember
from generators.decoupled.model import EncoderDecoder, Size
from generators.decoupled.tokenizer import train_tokenizer
from generators.decoupled.train import Settings, train
from rag.core.errors import ConfigError
from retrievers.context.build import build
from retrievers.context.encoded import Encoded
from retrievers.context.numbers import FORMATS
from retrievers.context.store import ContextStore

NAME = "decoupled"
OWN, OTHERS, NONE = "own", "others", "none"
PIECE = 40
"""Words of a context."""
PIECES = 3
"""Contexts of an abstract's own half, at most."""
TITLE, TARGET = 48, 160
"""Tokens, at most."""
HEAD = 32
"""Numbers of a head of attention."""
_RESAMPLES = 10_000
_TOLD = 25


@dataclass(frozen=True, slots=True)
class Abstract:
    """Its title and its text in pieces of `PIECE` words."""

    id: str
    title: str
    pieces: tuple[str, ...]

    @property
    def halves(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The first and the second half of the pieces."""
        middle = (len(self.pieces) + 1) // 2
        return self.pieces[:middle], self.pieces[middle:]

    def context(self, number: int) -> tuple[str, str]:
        """Name and text of a piece."""
        return f"{self.id}:{number}", self.pieces[number]


@dataclass(frozen=True, slots=True)
class Trial:
    """A held-out abstract: named contexts by way, what the decoder is given, and what it has to write."""

    ways: dict[str, list[tuple[str, str]]]
    title: str
    target: str


@dataclass(frozen=True, slots=True)
class Score:
    """Of one abstract: its tokens, and the sum of their natural log-probabilities by way."""

    tokens: int
    sums: dict[str, float]


def abstracts(data: Path) -> list[Abstract]:
    """Those of SciFact that have a title and three pieces or more."""
    made = []
    for passage in scifact(data).passages:
        words = passage.text.removeprefix(passage.title).split()
        pieces = tuple(" ".join(words[at : at + PIECE]) for at in range(0, len(words), PIECE))
        if len(pieces) >= 3 and passage.title.strip():
            made.append(Abstract(passage.id, passage.title.strip(), pieces))
    return made


def apart(found: Sequence[Abstract], held_out: int, seed: int = 0) -> tuple[list[Abstract], list[Abstract]]:
    """Those to learn from, and those held out. Raises `ConfigError`: either side needs three."""
    if held_out < 3 or len(found) - held_out < 3:
        raise ConfigError(f"{held_out} of {len(found)} abstracts would be held out: 3 or more are needed on either side")
    order = list(found)
    random.Random(seed).shuffle(order)
    return order[held_out:], order[:held_out]


def examples(model: EncoderDecoder, learnt: Sequence[Abstract], seed: int = 0) -> list[Example]:
    """Two of each abstract: each half as the target once, with pieces of the other and one of some other abstract, in any order."""
    draw = random.Random(seed)
    made = []
    for abstract in learnt:
        for contexts, target in (abstract.halves, abstract.halves[::-1]):
            stranger = draw.choice([other for other in draw.sample(learnt, 2) if other is not abstract])
            chosen = [*contexts[:PIECES], draw.choice(stranger.pieces)]
            draw.shuffle(chosen)
            made.append(
                Example(
                    tuple(tuple(model.ids(context)) for context in chosen), _title(model, abstract.title), _target(model, " ".join(target))
                )
            )
    return made


def trials(held_out: Sequence[Abstract]) -> list[Trial]:
    """The second half of each as the target; every way but "none" has the same piece of a third abstract too."""
    made = []
    for at, abstract in enumerate(held_out):
        other, third = (held_out[(at + step) % len(held_out)] for step in (1, 2))
        ways = {
            way: [whose.context(number) for number in range(min(PIECES, len(whose.halves[0])))] + [third.context(0)]
            for way, whose in ((OWN, abstract), (OTHERS, other))
        }
        made.append(Trial({**ways, NONE: []}, abstract.title, " ".join(abstract.halves[1])))
    return made


class Training:
    """The model for ``learnt``, trained below ``runs`` in a folder named by all that makes it."""

    def __init__(self, learnt: Sequence[Abstract], vocabulary: int, size: Size, settings: Settings, runs: Path) -> None:
        self._learnt, self._vocabulary, self._size, self._settings = learnt, vocabulary, size, settings
        read = hashlib.sha256(json.dumps([asdict(each) for each in learnt]).encode()).hexdigest()
        limits = [PIECES, TITLE, TARGET]
        self.folder = runs / f"model-{digest([read, vocabulary, asdict(size), asdict(settings), limits])}"

    def done(self) -> tuple[EncoderDecoder, dict[str, Any]]:
        """The model, and what training it took: what is not trained yet is trained now."""
        figures = self.folder / "figures.json"
        if not figures.is_file():
            found = self._trained()
            write_whole(figures, json.dumps(found, indent=1) + "\n")
            shutil.rmtree(self.folder / "training", ignore_errors=True)
        return EncoderDecoder.load(str(self.folder / "model"), device="cpu"), json.loads(figures.read_text("utf-8"))

    def _trained(self) -> dict[str, Any]:
        texts = [f"{abstract.title} {' '.join(abstract.pieces)}" for abstract in self._learnt]
        model = EncoderDecoder.created(train_tokenizer(texts, self._vocabulary), self._size, self._settings.seed)
        train(model, examples(model, self._learnt), self._settings, self.folder / "training", _told)
        model.save(self.folder / "model")
        events = list(Journal(self.folder / "training").events())
        return {
            "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
            "tokens": sum(event.tokens for event in events),
            "seconds": sum(event.seconds for event in events),
            "first_loss": events[0].loss,
            "last_loss": float(np.mean([event.loss for event in events[-50:]])),
        }


class Measurement:
    """One trained model over the held-out abstracts, out of a store of their pieces."""

    def __init__(self, model: EncoderDecoder, tried: Sequence[Trial], numbers: str, runs: Path) -> None:
        self._model, self._trials = model, tried
        self._encoder = DecoupledEncoder.over(model)
        contexts = {id: text for trial in tried for way in trial.ways.values() for id, text in way}
        key = {"model": asdict(self._encoder.identity), "trials": digest([asdict(trial) for trial in tried]), "numbers": numbers}
        folder = runs / f"store-{digest(key)}"
        build(folder, contexts.items(), self._encoder, numbers)
        self.store = ContextStore(folder, self._encoder.identity)
        self._key, self._kept = key, Kept(runs / "kept")

    def scores(self) -> list[Score]:
        """Of each abstract, in every way."""
        held = self._kept.value("scores", self._key, lambda: [asdict(self._score(trial)) for trial in self._trials])
        return [Score(int(each["tokens"]), {way: float(found) for way, found in each["sums"].items()}) for each in held]

    def times(self, rounds: int, anew: bool) -> dict[str, list[float]]:
        """Medians over abstracts of seconds, [from the store, encoded now]: until the decoder may begin, and until the target is read.

        Each abstract is the median of ``rounds``; the sides take turns.
        """
        key = {**self._key, "rounds": rounds}
        held: dict[str, list[float]] = self._kept.value("times", key, lambda: self._timed(rounds), anew=anew)
        return held

    def difference(self) -> float:
        """The largest difference of a token's log-probability with stored contexts from that with contexts encoded now."""
        return max(
            float((self._read(trial, self._stored(trial.ways[OWN])) - self._read(trial, self._live(trial.ways[OWN]))).abs().max())
            for trial in self._trials[:20]
        )

    def _score(self, trial: Trial) -> Score:
        found = {way: self._read(trial, self._stored(contexts)) for way, contexts in trial.ways.items()}
        return Score(len(found[OWN]), {way: float(each.sum()) for way, each in found.items()})

    def _read(self, trial: Trial, contexts: Sequence[Encoded]) -> Any:
        return logprobs(self._model, remember(self._model, contexts), _title(self._model, trial.title), _target(self._model, trial.target))

    def _stored(self, contexts: Sequence[tuple[str, str]]) -> list[Encoded]:
        found = self.store.get([id for id, _ in contexts], [text for _, text in contexts])
        stored = [one for one in found if isinstance(one, Encoded)]
        if len(stored) < len(found):
            raise ConfigError(f"{self.store.folder}: it lacks contexts or is damaged; delete it, and it is built anew")
        return stored

    def _live(self, contexts: Sequence[tuple[str, str]]) -> list[Encoded]:
        return self._encoder.encode([text for _, text in contexts])

    def _timed(self, rounds: int) -> dict[str, list[float]]:
        sides: tuple[Callable[[Sequence[tuple[str, str]]], list[Encoded]], ...] = (self._stored, self._live)
        found: list[list[list[float]]] = []
        for trial in self._trials:
            taken: list[list[tuple[float, float]]] = [[], []]
            for turn in range(rounds + 1):
                for side, get in enumerate(sides):
                    started = time.perf_counter()
                    contexts = get(trial.ways[OWN])
                    remember(self._model, contexts)
                    ready = time.perf_counter() - started
                    self._read(trial, contexts)
                    if turn:  # the first warms up
                        taken[side].append((ready, time.perf_counter() - started))
            found.append([[median(pair[what] for pair in side) for side in taken] for what in (0, 1)])
        middle = np.median(np.array(found), axis=0)
        return {"ready_s": middle[0].tolist(), "target_s": middle[1].tolist()}


def perplexity(scores: Sequence[Score], way: str) -> float:
    """Per token, over all of them."""
    return math.exp(-sum(score.sums[way] for score in scores) / sum(score.tokens for score in scores))


def intervals(scores: Sequence[Score], seed: int = 0) -> dict[str, tuple[float, float]]:
    """95% over abstracts drawn with replacement (percentile bootstrap): of each way's perplexity, and of what own contexts take off that of
    ``others`` and ``none``, in percent."""
    tokens = np.array([score.tokens for score in scores])
    drawn = np.random.default_rng(seed).integers(0, len(scores), (_RESAMPLES, len(scores)))
    means = {
        way: np.array([score.sums[way] for score in scores])[drawn].sum(axis=1) / tokens[drawn].sum(axis=1) for way in (OWN, OTHERS, NONE)
    }
    values = {way: np.exp(-mean) for way, mean in means.items()}
    values |= {f"{OWN}/{way}": 100 * (1 - np.exp(means[way] - means[OWN])) for way in (OTHERS, NONE)}
    return {name: (float(ends[0]), float(ends[1])) for name, each in values.items() for ends in [np.quantile(each, [0.025, 0.975])]}


def rows(scores: Sequence[Score], times: dict[str, list[float]], difference: float, figures: dict[str, Any]) -> list[Row]:
    """All rows but the store's."""
    ppl, ends = {way: perplexity(scores, way) for way in (OWN, OTHERS, NONE)}, intervals(scores)
    made = [Row(NAME, OWN, "ppl", ppl[OWN], "", "others' contexts", ppl[OTHERS]), *_ends(OWN, "ppl", ends[OWN], "")]
    for way in (OTHERS, NONE):
        made += [Row(NAME, way, "ppl", ppl[way]), *_ends(way, "ppl", ends[way], "")]
        off = 100 * (1 - ppl[OWN] / ppl[way])
        made += [Row(NAME, OWN, f"reduction_{way}", off, "%"), *_ends(OWN, f"reduction_{way}", ends[f"{OWN}/{way}"], "%")]
    made += [Row(NAME, OWN, "abstracts", len(scores)), Row(NAME, OWN, "tokens", sum(score.tokens for score in scores))]
    made += [Row(NAME, "store", metric, stored, "s", "encoded anew", live) for metric, (stored, live) in times.items()]
    made.append(Row(NAME, "store", "difference", difference, "nats"))
    return made + [Row(NAME, "training", name, float(value), "s" if name == "seconds" else "") for name, value in figures.items()]


def measure(given: argparse.Namespace) -> list[Row]:
    """All rows."""
    learnt, held_out = apart(abstracts(given.data), given.held_out)
    size = Size(given.width, HEAD, 4 * given.width, given.layers, given.layers, given.width // HEAD)
    settings = Settings(given.steps, given.batch, given.lr)
    model, figures = Training(learnt[: given.abstracts], given.vocabulary, size, settings, given.runs).done()
    work = Measurement(model, trials(held_out), given.format, given.runs)
    made = rows(work.scores(), work.times(given.rounds, given.speed), work.difference(), figures)
    info = work.store.info()
    formula = work.store.model.bytes_per_token(FORMATS[given.format].bits / 8)
    made.append(Row(NAME, "store", "bytes_per_token", info["bytes_per_token"], "B", "the formula", formula))
    return made


def _title(model: EncoderDecoder, title: str) -> tuple[int, ...]:
    return tuple(model.ids(title)[:TITLE])


def _target(model: EncoderDecoder, text: str) -> tuple[int, ...]:
    """With its end, unless it is cut."""
    return (*model.ids(text), model.end)[:TARGET]


def _ends(case: str, metric: str, ends: tuple[float, float], unit: str) -> list[Row]:
    return [Row(NAME, case, f"{metric}_{end}", value, unit) for end, value in zip(("min", "max"), ends, strict=True)]


def _told(event: Event) -> None:
    if event.step % _TOLD == 0 or event.step == 1:
        print(f"step {event.step} of {event.total}: loss {event.loss:.3f}, {event.seconds:.2f} s", flush=True)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    known = parser(__doc__ or "")
    known.add_argument("--data", type=Path, required=True, help="folder with scifact/")
    known.add_argument("--runs", type=Path, default=Path(f"results/{NAME}"), help="folder that keeps the model, its store and the results")
    known.add_argument("--abstracts", type=int, help="only so many abstracts to learn from")
    known.add_argument("--held-out", type=int, default=300, help="abstracts to predict")
    known.add_argument("--steps", type=int, default=3500, help="of training")
    known.add_argument("--batch", type=int, default=8, help="examples of a step")
    known.add_argument("--lr", type=float, default=2e-2, help="the highest learning rate, relative to the size of each tensor's numbers")
    known.add_argument("--vocabulary", type=int, default=2048, help="tokens of the tokenizer")
    known.add_argument("--width", type=int, default=128, help=f"of the model: a multiple of {HEAD}")
    known.add_argument("--layers", type=int, default=2, help="of the encoder, and of the decoder")
    known.add_argument("--format", choices=list(FORMATS), default="float32", help="of the numbers in the store")
    known.add_argument("--rounds", type=int, default=3, help="times of each way for an abstract, after one to warm up")
    known.add_argument("--speed", action="store_true", help="measure the times anew, though they are kept")
    given = known.parse_args(arguments)
    if given.width < HEAD or given.width % HEAD:
        known.error(f"--width {given.width}: it is a multiple of {HEAD}")
    if min(given.layers, given.rounds, given.abstracts or 1) < 1 or given.abstracts == 0:
        known.error("--layers, --rounds and --abstracts are at least 1")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    given = options(arguments)
    report(measure(given), given, "torch", "transformers", "tokenizers", "safetensors")


if __name__ == "__main__":
    main()
