"""LoRAHub on LoRAs of BIG-Bench Hard's tasks: does a composition found by five examples help on a task that none of them learnt?

    python -m benchmarks.lorahub --data ../shared/data

A LoRA for each task of ``--tasks`` is trained on the embedded model (r 16, alpha 32, q and v, as in the paper) and asked its own held-out
questions. Of each task of ``--unseen`` five examples are drawn as the released code does; LoRAHub searches, and the rest of the task is
asked: of the base model, the composition, the best LoRA alone, and for comparison the exact weighted sum, TIES and DARE. Last, an
evaluation of the objective is timed beside one as the released code does it.

All is kept in ``--runs``, in a folder for each recipe of training: a stopped benchmark goes on with the same command. The LoRAs are in a
registry there, and the examples beside it, so that a composition can be made by hand:

    rag compose results/lorahub/KEY/few/web_of_lies.jsonl --registry results/lorahub/KEY/registry --count 8 --out composed
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from adapters import LoRA, load
from adapters.adapted import Adapted
from adapters.contract import Factors
from adapters.fingerprint import fingerprint
from adapters.lorahub import LoRAHub
from adapters.lorahub.composition import Stack, WornStack, read_stack
from adapters.lorahub.examples import batches
from adapters.lorahub.merging import merged_by_peft, weighted_sum
from adapters.lorahub.objective import Objective, cross_entropy, evaluating
from adapters.training.data import Answered, DataFile
from adapters.training.options import Options
from benchmarks.kept import Kept, digest
from benchmarks.lorahub_tasks import MAX_TOKENS, Recipe, Score, Scorer, Unseen, Workshop, read_bbh, scored
from benchmarks.report import Row, parser, report
from rag.evaluate.statistics import bootstrap_difference, bootstrap_mean, permutation_test

TASKS = (
    "boolean_expressions",
    "date_understanding",
    "hyperbaton",
    "multistep_arithmetic_two",
    "navigate",
    "object_counting",
    "ruin_names",
    "sports_understanding",
)
"""Short questions with short answers, of six forms: True, yes, Yes, (A) of two and of six, numbers."""
UNSEEN = ("web_of_lies", "snarks")
NAME = "lorahub"


class Compared:
    """Ways to make one LoRA of a stack for a task, by its few examples. Each gives its weights and what wears them.

    The merges take one weight for all LoRAs, the one of 1 / N², 1 / N, 1 / 2 and 1 with the smallest loss on the examples.
    """

    def __init__(self, model: Any, stack: Stack, few: Sequence[Mapping[str, Tensor]], hub: LoRAHub) -> None:
        self._model = model
        self._stack = stack
        self._few = few
        self._hub = hub

    def composed(self) -> tuple[dict[str, Any], Adapted]:
        """LoRAHub's."""
        started = time.perf_counter()
        found = self._hub.compose_stack(self._model, self._few, self._stack, _told)
        seconds = time.perf_counter() - started
        return {"weights": list(found.weights), "values": list(found.values), "seconds": seconds}, found.adapted

    def single(self) -> tuple[dict[str, Any], Adapted]:
        """The LoRA that alone has the smallest loss."""
        worn = WornStack(self._model, self._stack)
        ones = torch.eye(len(self._stack)).tolist()
        with evaluating(worn.adapted.model):
            objective = Objective(worn, self._few)
            best = min(ones, key=objective.loss)
        worn.write(best)
        return {"weights": best, "name": self._stack.modules[best.index(1.0)].name}, worn.adapted

    def weighted_sum(self) -> tuple[dict[str, Any], Adapted]:
        """The exact weighted sum of the changes."""
        return self._merged(partial(weighted_sum, self._stack))

    def ties(self) -> tuple[dict[str, Any], Adapted]:
        """PEFT's TIES, at density 0.5."""
        return self._merged(lambda weights: merged_by_peft(self._model, self._stack, weights, "ties"))

    def dare(self) -> tuple[dict[str, Any], Adapted]:
        """PEFT's DARE with a linear sum, at density 0.5."""
        return self._merged(lambda weights: merged_by_peft(self._model, self._stack, weights, "dare_linear"))

    def _merged(self, merge: Callable[[list[float]], Factors]) -> tuple[dict[str, Any], Adapted]:
        size = len(self._stack)
        losses = {}
        for weight in (1 / size**2, 1 / size, 0.5, 1.0):
            adapted = worn_factors(self._model, self._stack, merge([weight] * size))
            with evaluating(adapted.model):
                losses[weight] = cross_entropy(adapted.model, self._few)
            adapted.remove()
        best = min(losses, key=losses.__getitem__)
        return {"weights": [best] * size}, worn_factors(self._model, self._stack, merge([best] * size))


def worn_factors(model: Any, stack: Stack, factors: Factors) -> Adapted:
    """``model`` with ``factors`` as its one LoRA; ``stack`` is what they were made of."""
    pairs = factors.pairs.items()
    shapes = {layer: ((a.shape[0], a.shape[1]), (b.shape[0], b.shape[1])) for layer, (a, b) in pairs}
    shared = replace(stack.shared, r=factors.r, alpha=factors.alpha, rank_stabilised=False, shapes=shapes)
    lone = Stack(stack.modules[:1], shared, {layer: a[None] for layer, (a, _) in pairs}, {layer: b[None] for layer, (_, b) in pairs})
    worn = WornStack(model, lone)
    worn.write([1.0])
    return worn.adapted


def _told(number: int, value: float, best: float) -> None:
    print(f"evaluation {number}: {value:.4f}, best {best:.4f}", flush=True)


class Study:
    """All of the benchmark that is about answers, in ``folder``."""

    def __init__(self, folder: Path, recipe: Recipe, model: Any, tokenizer: Any) -> None:
        self._folder = folder
        self._recipe = recipe
        self._model = model
        self._tokenizer = tokenizer
        self._scorer = Scorer(tokenizer)
        self._kept = Kept(folder / "results")
        self.workshop = Workshop(folder, recipe, model, tokenizer, self._scorer, self._kept)

    def trained(self, task: DataFile) -> list[Row]:
        """A LoRA on its own task's held-out questions, beside the base model."""
        folder = self.workshop.lora(task)
        base, lora = self.workshop.own_scores(task, lambda: load(self._model, folder))
        return score_rows(f"trained/{task.path.stem}", lora, base)

    def unseen(self, asked: Unseen, folders: Sequence[Path], hub: LoRAHub) -> list[Row]:
        """What each way to make one LoRA of all gains on a task that none learnt."""
        name = asked.task.path.stem
        asked.write(self._folder / "few" / f"{name}.jsonl")
        few = batches(self._model, self._tokenizer, asked.few, hub.batch, MAX_TOKENS)
        about = {"recipe": self._recipe.settings(), "task": asked.task.sha256, "questions": len(asked.rest)}
        base = self._kept.value(f"{name}-base", about, lambda: {"score": asdict(self._scorer.score(self._model, asked.rest))})
        rows = [majority_row(f"{name}/majority", [one.answer for one in asked.rest])]
        rows += score_rows(f"{name}/base", Score(**base["score"]), None)
        compared = Compared(self._model, read_stack(folders), few, hub)
        for way in ("composed", "single", "weighted_sum", "ties", "dare"):
            settings = {**about, "loras": [folder.name for folder in folders], "hub": asdict(hub), "way": way}
            found = self._kept.value(f"{name}-{way}", settings, partial(self._measured, getattr(compared, way), few, asked, way))
            rows += score_rows(f"{name}/{way}", Score(**found["score"]), Score(**base["score"]))
            rows += few_rows(f"{name}/{way}", found)
        return rows

    def _measured(
        self, make: Callable[[], tuple[dict[str, Any], Adapted]], few: Sequence[Mapping[str, Tensor]], asked: Unseen, way: str
    ) -> dict[str, Any]:
        start = cross_entropy(self._model, few)
        found, adapted = make()
        found |= {"start_ce": start, "few_ce": cross_entropy(adapted.model, few)}
        adapted.save(self._folder / "made" / f"{asked.task.path.stem}-{way}", {"made": found})
        print(f"{asked.task.path.stem}/{way}: loss on the examples {start:.4f} -> {found['few_ce']:.4f}", flush=True)
        return {**found, "score": asdict(scored(adapted, self._scorer, asked.rest))}


def score_rows(case: str, score: Score, base: Score | None) -> list[Row]:
    """Shares and loss with their 95% intervals, beside those of the base model; the paired differences with theirs."""
    rows = []
    for metric, field in {"em": "em", "em_line": "line", "loss": "loss"}.items():
        values, unit = getattr(score, field), "nats/token" if metric == "loss" else "of the questions"
        low, high = bootstrap_mean(values)
        peer, peer_value = ("", None) if base is None else ("base", _mean(getattr(base, field)))
        rows.append(Row(NAME, case, metric, _mean(values), unit, peer, peer_value))
        rows += [Row(NAME, case, f"{metric}_min", low, unit), Row(NAME, case, f"{metric}_max", high, unit)]
    if base is not None:
        rows += [*_gain_rows(case, "gain", base.em, score.em), *_gain_rows(case, "gain_line", base.line, score.line)]
    return rows


def _gain_rows(case: str, metric: str, base: Sequence[float], score: Sequence[float]) -> list[Row]:
    low, high = bootstrap_difference(base, score)
    gain = Row(NAME, case, metric, _mean(score) - _mean(base), "", "base")
    p = Row(NAME, case, f"p_{metric}", permutation_test(base, score))
    return [gain, Row(NAME, case, f"{metric}_min", low), Row(NAME, case, f"{metric}_max", high), p]


def majority_row(case: str, answers: Sequence[str]) -> Row:
    """What one gets who always gives the most frequent answer."""
    return Row(NAME, case, "em", max(Counter(answers).values()) / len(answers), "of the questions")


def few_rows(case: str, found: Mapping[str, Any]) -> list[Row]:
    """The loss on the five examples; of a search also the objective, at 0 and at its best."""
    rows = [Row(NAME, case, "few_loss", found["few_ce"], "nats/token", "base", found["start_ce"])]
    if "values" in found:
        values = found["values"]
        rows += [
            Row(NAME, case, "start", values[0], "nats/token"),
            Row(NAME, case, "best", min(values), "nats/token", "start", values[0]),
            Row(NAME, case, "evaluations", len(values)),
            Row(NAME, case, "loras_used", sum(weight != 0 for weight in found["weights"]), f"of {len(found['weights'])}"),
            Row(NAME, case, "search_s", found["seconds"], "s"),
        ]
    return rows


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


class StateDicts:
    """An evaluation as the released code has it (``get_score`` of ``lorahub/algorithm.py``): the weighted sum of N state dicts, key by key,
    put into the model by PEFT, and the model's own loss over its padded batch."""

    def __init__(self, model: Any, folders: Sequence[Path]) -> None:
        from peft import PeftModel

        self._folders = folders
        self._peft: Any = PeftModel.from_pretrained(model, folders[0]).eval()
        self._states = self._read()

    def _read(self) -> list[dict[str, Tensor]]:
        from safetensors.torch import load_file

        return [load_file(folder / "adapter_model.safetensors") for folder in self._folders]

    def write(self, weights: Sequence[float], from_files: bool = False) -> None:
        """Sum what is in memory, as the released code's cache; or read every state dict, then sum."""
        from peft import set_peft_model_state_dict

        total: dict[str, Tensor] = {}
        for weight, state in zip(weights, self._read() if from_files else self._states, strict=True):
            for key, tensor in state.items():
                total[key] = total[key] + weight * tensor if key in total else weight * tensor
        set_peft_model_state_dict(self._peft, total)

    def loss(self, batch: Mapping[str, Tensor]) -> float:
        """Of what is written, nats."""
        with torch.no_grad():
            return float(self._peft(**batch).loss)

    def evaluation(self, weights: Sequence[float], batch: Mapping[str, Tensor], from_files: bool = False) -> float:
        """Both."""
        self.write(weights, from_files)
        return self.loss(batch)


class Speed:
    """Both ways on their own copy of the model, in turn, ``rounds`` times with new random weights."""

    def __init__(self, build: Callable[[], Any], tokenizer: Any, folders: Sequence[Path], few: Sequence[Answered], rounds: int) -> None:
        model = build()
        self._batches = batches(model, tokenizer, few, len(few), MAX_TOKENS)
        self._worn = WornStack(model, read_stack(folders))
        self._objective = Objective(self._worn, self._batches)
        self._peer = StateDicts(build(), folders)
        self._rounds = rounds
        self._size = len(folders)

    def rows(self, case: str) -> list[Row]:
        """Medians, and ratios peer / ours with the least and the most of a round."""
        generator = torch.Generator().manual_seed(0)
        seconds: dict[str, list[float]] = {}
        difference = 0.0
        for number in range(self._rounds + 1):
            weights = (torch.rand(self._size, generator=generator) * 3 - 1.5).div(self._size**0.5).tolist()
            (batch,) = self._batches
            found, losses = self._round(weights, batch)
            difference = max(difference, abs(losses[0] - losses[1]))
            for name, value in found.items() if number else ():  # the first warms up
                seconds.setdefault(name, []).append(value)
        compared = {
            "compose": ("key by key", "write", "sum"),
            "reload": ("key by key, read from their files", "write", "sum_files"),
            "forward": ("the model's own loss", "forward", "peer_forward"),
            "evaluation": ("key by key", "evaluation", "peer"),
            "evaluation_files": ("key by key, read from their files", "evaluation", "peer_files"),
        }
        rows = [row for name, parts in compared.items() for row in _ratio_rows(case, name, seconds, *parts)]
        return [*rows, Row(NAME, case, "loss_difference", difference, "nats/token", "key by key")]

    def _round(self, weights: list[float], batch: Mapping[str, Tensor]) -> tuple[dict[str, float], tuple[float, float]]:
        model = self._worn.adapted.model
        seconds, losses = {}, {}
        acts: dict[str, Callable[[], Any]] = {
            "write": partial(self._worn.write, weights),
            "sum": partial(self._peer.write, weights),
            "sum_files": partial(self._peer.write, weights, from_files=True),
            "forward": partial(cross_entropy, model, self._batches),
            "peer_forward": partial(self._peer.loss, batch),
            "evaluation": partial(self._objective.loss, weights),
            "peer": partial(self._peer.evaluation, weights, batch),
            "peer_files": partial(self._peer.evaluation, weights, batch, from_files=True),
        }
        for name, act in acts.items():
            started = time.perf_counter()
            losses[name] = act()
            seconds[name] = time.perf_counter() - started
        return seconds, (losses["evaluation"], losses["peer"])


def _ratio_rows(case: str, name: str, seconds: Mapping[str, list[float]], peer: str, own: str, other: str) -> list[Row]:
    ratios = [b / a for a, b in zip(seconds[own], seconds[other], strict=True)]
    return [
        Row(NAME, case, name, 1e3 * median(seconds[own]), "ms", peer, 1e3 * median(seconds[other])),
        Row(NAME, case, f"{name}_ratio", median(ratios), "×", peer),
        Row(NAME, case, f"{name}_ratio_min", min(ratios), "×"),
        Row(NAME, case, f"{name}_ratio_max", max(ratios), "×"),
    ]


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--data", type=Path, required=True, help="folder with bbh/")
    arguments.add_argument("--base", default="smollm2", help="base model: smollm2, or a folder")
    arguments.add_argument("--tasks", nargs="+", default=list(TASKS), help="tasks of BBH that LoRAs are trained on")
    arguments.add_argument("--unseen", nargs="+", default=list(UNSEEN), help="tasks that they are composed for")
    arguments.add_argument("--steps", type=_count, default=40, help="steps of each training")
    arguments.add_argument("--batch", type=_count, default=8, help="examples of a step")
    arguments.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    arguments.add_argument("--held-out", type=_count, default=100, help="questions of each task that are kept out of training, and asked")
    arguments.add_argument("--limit", type=_count, help="only so many questions of each unseen task")
    arguments.add_argument("--evaluations", type=_count, default=40, help="evaluations of a search")
    arguments.add_argument("--candidates", type=_count, default=20, help="LoRAs in the stack that is timed; those trained are repeated")
    arguments.add_argument("--rounds", type=_count, default=9, help="evaluations that are timed")
    arguments.add_argument("--runs", type=Path, default=Path("results/lorahub"), help="folder that keeps LoRAs and results")
    return arguments.parse_args()


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def main() -> None:
    """Print the table."""
    given = options()
    tasks, unseen = ([read_bbh(given.data, name) for name in names] for names in (given.tasks, given.unseen))
    build, tokenizer = _loader(given.base)
    model = build()
    lora = LoRA(r=16, alpha=32.0, dropout=0.1, targets=("q_proj", "v_proj"))
    recipe = Recipe(
        lora, Options(lr=given.lr, steps=given.steps, batch=given.batch, save_every=8, keep="last"), given.held_out, fingerprint(model, ())
    )
    folder = given.runs / digest(recipe.settings())
    study = Study(folder, recipe, model, tokenizer)
    rows = [row for task in tasks for row in study.trained(task)]
    folders = [study.workshop.lora(task) for task in tasks]
    asked = [Unseen.of(task, given.limit) for task in unseen]
    hub = LoRAHub(evaluations=given.evaluations, max_tokens=MAX_TOKENS)
    rows += [row for one in asked for row in study.unseen(one, folders, hub)]
    repeated = [folders[index % len(folders)] for index in range(given.candidates)]
    rows += Speed(build, tokenizer, repeated, asked[0].few, given.rounds).rows(f"speed/n{given.candidates}")
    print(f"LoRAs, compositions and results are in {folder}", flush=True)
    report(rows, given, "torch", "transformers", "peft", "scipy")


def _loader(base: str) -> tuple[Callable[[], Any], Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from generators.models.embedded import resolve, without_progress_bars

    folder = resolve(base)

    def build() -> Any:
        with without_progress_bars():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        return model.eval()

    return build, AutoTokenizer.from_pretrained(folder)


if __name__ == "__main__":
    main()
