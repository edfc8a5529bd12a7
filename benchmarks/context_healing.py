"""What a LoRA that was trained with passages apart gives back: answers from stitched passages, bare and with it, beside full reading.

    python -m benchmarks.context_healing --data ../shared/data --control

The LoRA learns from questions of XQuAD's other articles, each with its own paragraph and one or two of the same article in random order,
no passage seeing another. The questions of `benchmarks.context_store` are asked: held-out articles, two passages of BM25. Cases: ``full``
and ``stitched``, the bare model; ``healed``, stitched with the LoRA; ``healed-full``, the same LoRA reading all at once. A LoRA also
teaches how these questions want to be answered, so ``--control`` trains another one on the same lessons in which every passage sees those
before it: ``control`` reads in full with it, and ``control-stitched`` shows what the mask in training has to do with it. ``--links 5``
trains a third one together with so many link tokens behind each passage (KVLink): ``linked`` is stitched with it.

A training takes 20 minutes on one thread of an AMD EPYC, 80 answers one to three. Training and answers are kept in ``--runs``, which may be
that of `context_store`: a stopped benchmark goes on with the same command, and the bare model is asked once for both.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.additive.link_tokens.config import LinkTokens
from adapters.folder import read_card
from adapters.reparameterised.lora.config import LoRA
from adapters.training.options import Options
from benchmarks.context_store import HELD_OUT, SCORES, SOURCES, XQUAD, Measurement, found
from benchmarks.context_ways import FULL, STITCHED, Asked, Ways, gathered
from benchmarks.domain_data import ARTICLE, Split, split
from benchmarks.files import write_whole
from benchmarks.kept import Kept, digest
from benchmarks.report import Row, parser, report
from generators.models.stitched.encoder import LocalEncoder
from generators.passages import passage_data
from rag.core.errors import InputError
from rag.evaluate.compare import Comparison, Estimate, compare, mean_of
from rag.evaluate.datasets import load
from rag.evaluate.types import Outcome
from retrievers.context.numbers import FORMATS

if TYPE_CHECKING:
    from adapters.training.journal import Event

NAME = "context_healing"
HEALED, CONTROL, LINKED = "healed", "control", "linked"
SAVED = 4
"""Steps between two checkpoints: one to two minutes on two cores."""
ADAPTER, DATA, WORKING = "adapter", "train.jsonl", "training"


@dataclass(frozen=True, slots=True)
class Case:
    """The way in which passages are read, and which LoRA the model wears ("": none)."""

    way: str
    worn: str = ""


CASES = {"full": Case(FULL), "stitched": Case(STITCHED), HEALED: Case(STITCHED, HEALED), "healed-full": Case(FULL, HEALED)}
CONTROLS = {CONTROL: Case(FULL, CONTROL), "control-stitched": Case(STITCHED, CONTROL)}
LINKS = {LINKED: Case(STITCHED, LINKED)}
COMPARED = {
    "f1_gain": {HEALED: "stitched", CONTROL: "full", "healed-full": "full", "control-stitched": "stitched", LINKED: "stitched"},
    "f1_to_full": {"stitched": "full", HEALED: CONTROL, "control-stitched": CONTROL, LINKED: CONTROL},
    "f1_by_links": {LINKED: HEALED},
}
"""Points of F1 over the same questions: what each adapter gains in its way of reading, how far stitched stands from full reading, and what
link tokens add to the LoRA."""


def lessons(given: Split, seed: int) -> Iterator[str]:
    """JSON Lines as `rag train` takes them: of each question its own paragraph among one or two others of its article, shuffled."""
    shelves: dict[Any, list[Any]] = {}
    for passage in given.asked.passages:
        shelves.setdefault(passage.metadata[ARTICLE], []).append(passage)
    draw = random.Random(seed)
    for question in given.learnt:
        shelf = shelves[question.metadata[ARTICLE]]
        others = [passage for passage in shelf if passage.id != question.gold[0]]
        own = [passage for passage in shelf if passage.id == question.gold[0]]
        shown = own + draw.sample(others, min(draw.choice((1, 2)), len(others)))
        draw.shuffle(shown)
        row = {"passages": [passage_data(passage) for passage in shown], "question": question.question, "answer": question.answers[0]}
        yield json.dumps(row, ensure_ascii=False)


class Learner:
    """An adapter of ``method`` for ``model``, trained on ``lines`` with passages ``apart`` or not.

    Below ``runs`` it has a folder of its own, named by all that makes it: whatever differs is another one.
    """

    def __init__(self, model: str, lines: Sequence[str], method: LoRA | LinkTokens, options: Options, apart: bool, runs: Path) -> None:
        self._model = model
        self._content = "".join(f"{line}\n" for line in lines)
        self._method = method
        self._options = options
        self._apart = apart
        self._folder = runs / f"learner-{digest([model, self._content, asdict(method), asdict(options), apart])}"

    def train(self) -> Path:
        """The folder of the adapter, trained now, from its last checkpoint on, or before. Prints its progress."""
        adapter = self._folder / ADAPTER
        if not adapter.is_dir():
            write_whole(self._folder / DATA, self._content)
            self._trained(adapter)
            shutil.rmtree(self._folder / WORKING, ignore_errors=True)
        return adapter

    def _trained(self, adapter: Path) -> None:
        from accelerate.utils import set_seed  # type: ignore[import-untyped]

        from adapters.adapted import adapt
        from adapters.training.blocks import APART, BlockTask
        from adapters.training.card import run_card
        from adapters.training.data import read
        from adapters.training.trainer import train
        from generators.models.loading import load_decoder
        from generators.models.stitched.decoder import Decoder
        from generators.models.stitched.lessons import Lessons

        model, tokenizer = load_decoder(self._model, "float32", "cpu")
        decoder = Decoder(model, tokenizer, self._model)
        links = self._method.ids(decoder.vocabulary) if isinstance(self._method, LinkTokens) else ()
        task = BlockTask(tokenizer, decoder.window, Lessons(decoder).prompt, self._apart, links)
        data = read(self._folder / DATA)
        encoded = task.encode(data.records)
        set_seed(self._options.seed)  # LoRA's A is drawn, and where link tokens start
        adapted = adapt(model, self._method)
        about = {"data": data.sha256, "apart": self._apart}
        outcome = train(adapted, task, encoded.examples, self._options, (), self._folder / WORKING, True, about, _tell)
        attention = APART if self._apart else ""
        adapted.save(adapter, run_card(data, None, decoder.window, self._options, outcome, encoded.cut, attention=attention))


def trained(case: str, adapter: Path) -> list[Row]:
    """What training took, off the adapter's card."""
    outcome = read_card(adapter)["outcome"]
    figures = {
        "steps": (outcome["steps"], ""),
        "s_per_step": (outcome["seconds"] / outcome["steps"], "s"),
        "tokens": (outcome["tokens"], ""),
        "first_loss": (outcome["first_loss"], "nats/token"),
        "last_loss": (outcome["last_loss"], "nats/token"),
    }
    return [Row(NAME, f"train/{case}", metric, value, unit) for metric, (value, unit) in figures.items()]


def rows(comparison: Comparison, cases: Sequence[str]) -> Iterator[Row]:
    """Scores in percent with their intervals, and the differences of `COMPARED` where both cases were asked."""
    for case in cases:
        result = comparison.result(case)
        yield Row(NAME, f"answers/{case}", "questions", len(result.outcomes))
        for metric, known in SCORES.items():
            yield from _with_ends(case, metric, result.means[known], "%")
        for metric, pairs in COMPARED.items():
            if pairs.get(case) in cases:
                other = comparison.result(pairs[case])
                both = zip(other.scores[SCORES["f1"]], result.scores[SCORES["f1"]], strict=True)
                differences = [after - before for before, after in both if before is not None and after is not None]
                yield from _with_ends(case, metric, mean_of(differences, comparison.seed), "points")


def _with_ends(case: str, metric: str, mean: Estimate | None, unit: str) -> Iterator[Row]:
    if mean is not None:
        for name, value in ((metric, mean.mean), (f"{metric}_min", mean.low), (f"{metric}_max", mean.high)):
            yield Row(NAME, f"answers/{case}", name, 100 * value, unit)


def measure(given: argparse.Namespace) -> list[Row]:
    """All rows."""
    file = given.data / SOURCES[XQUAD].file
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; --data takes the folder that holds xquad/")
    parts = split(load(file), HELD_OUT, given.limit or SOURCES[XQUAD].questions, 0)  # as `context_store` draws them
    asked = found(XQUAD, parts.asked, given.runs / f"corpus-{parts.asked.fingerprint[:12]}")
    lines = list(lessons(parts, given.seed))
    lora = LoRA(given.rank, 2.0 * given.rank, targets="all")
    learners = {HEALED: _learner(given, lines, lora)}
    if given.control:
        learners[CONTROL] = _learner(given, lines, lora, apart=False)
    if given.links:
        learners[LINKED] = _learner(given, lines, LinkTokens(given.links, given.rank))
    worn = {name: learner.train() for name, learner in learners.items()}
    cases = {**CASES, **(CONTROLS if given.control else {}), **(LINKS if given.links else {})}
    answers = _answers(given, cases, worn, asked)
    outcomes = {
        case: [Outcome(q.id, text, retrieved=one.ids) for q, one, text in zip(parts.asked.questions, asked, answers[case], strict=True)]
        for case in cases
    }
    compared = compare(parts.asked, outcomes, list(SCORES.values()))
    return [*rows(compared, list(cases)), *(row for name, adapter in worn.items() for row in trained(name, adapter))]


def _answers(
    given: argparse.Namespace, cases: Mapping[str, Case], worn: Mapping[str, Path], asked: Sequence[Asked]
) -> dict[str, list[str]]:
    """What is answered in each case; one model is loaded at a time."""
    told: dict[str, list[str]] = {}
    for name in ("", *worn):
        encoder = LocalEncoder(given.model, str(worn[name]) if name else None, "float32", "cpu")
        folder = given.runs / f"store-{digest([asdict(encoder.identity), encoder.dtype, given.format])}"
        side = Measurement(Ways(encoder, folder, gathered([asked]), given.format), Kept(given.runs / "kept"))
        told |= {case: side.answers(f"answers/{case}", one.way, asked) for case, one in cases.items() if one.worn == name}
    return told


def _learner(given: argparse.Namespace, lines: Sequence[str], method: LoRA | LinkTokens, apart: bool = True) -> Learner:
    options = Options(
        lr=given.lr,
        steps=given.steps,
        batch=given.batch,
        accumulate=given.accumulate,
        seed=given.seed,
        save_every=SAVED,
        keep="last",
    )
    return Learner(given.model, lines, method, options, apart, given.runs)


def _tell(event: Event) -> None:
    loss = "" if event.loss is None else f"loss {event.loss:.3f}, "
    print(f"step {event.step} of {event.total}: {loss}{event.seconds:.1f} s, {event.tokens_per_second:,.0f} tokens/s", flush=True)


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    known = parser(__doc__ or "")
    known.add_argument("--data", type=Path, required=True, help="folder with xquad/")
    known.add_argument("--runs", type=Path, default=Path("results/context_store"), help="folder that keeps adapters, stores and answers")
    known.add_argument("--model", default="smollm2", help="smollm2, a folder, or a Hugging Face id; on the CPU, in float32")
    known.add_argument("--format", choices=list(FORMATS), default="float16", help="of the numbers in the store")
    known.add_argument("--control", action="store_true", help="train and ask the control too: twice the time")
    known.add_argument("--links", type=int, default=0, help="train and ask so many link tokens with a LoRA too: as much time as the LoRA")
    known.add_argument("--limit", type=int, help="only so many questions")
    known.add_argument("--steps", type=int, default=40, help="steps of training, each over --batch x --accumulate lessons")
    known.add_argument("--batch", type=int, default=1, help="lessons computed at once")
    known.add_argument("--accumulate", type=int, default=8, help="batches of a step")
    known.add_argument("--lr", type=float, default=1e-3)
    known.add_argument("--rank", type=int, default=16, help="of the LoRA, on all linear layers; its alpha is twice that")
    known.add_argument("--seed", type=int, default=0, help="of the lessons and of training")
    given = known.parse_args(arguments)
    if (given.limit is not None and given.limit < 1) or given.links < 0:
        known.error("--limit is at least 1, --links at least 0")
    return given


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    given = options(arguments)
    report(measure(given), given, "torch", "transformers", "peft", "accelerate", "safetensors", "bm25s")


if __name__ == "__main__":
    main()
