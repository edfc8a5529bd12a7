"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from adapters.adapted import Adapted
from adapters.contract import NeedsExamples, Penalised, Planned, Steps, TrainingState
from adapters.methods import arguments
from adapters.training.batches import Order, in_order
from adapters.training.checkpoint import Checkpoint, Checkpoints
from adapters.training.engine import Engine
from adapters.training.journal import Event, Journal
from adapters.training.options import Options
from adapters.training.progress import Progress, snapshot, take
from adapters.training.tasks import Example, Task
from rag.core.errors import AdapterError, InputError


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    steps: int
    total: int
    early: bool
    """Whether `Options.patience` ended it."""
    kept: int
    """The step whose weights the model wears now."""
    first_loss: float
    last_loss: float
    held_out: tuple[tuple[int, float], ...]
    """(step, loss); step 0 is before training."""
    tokens: int
    seconds: float
    """Of steps: without loading, evaluation and checkpoints. A resumed run counts the steps before it."""


def train(
    adapted: Adapted,
    task: Task,
    examples: Sequence[Example],
    options: Options = Options(),
    held_out: Sequence[Example] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    about: Mapping[str, Any] | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Train what ``adapted`` wears, and its head; the model is in evaluation mode afterwards.

    ``folder`` holds checkpoints and ``losses.jsonl``; with ``resume`` the run goes on from the newest (from the start if there is none),
    and ends with the very weights of a run that was not stopped. ``about`` (JSON; the hash of the data, say) has to be the same then, as
    have the options, the method and the base. The global random generators are seeded.

    Raises `AdapterError` when a loss or gradient is not finite (the last checkpoint stays), `InputError` for options that do not fit, and
    what `Checkpoints` raises.
    """
    run = _Run(adapted, task, Order(examples, options.batch, options.accumulate, options.seed, task.least), options, held_out, on_event)
    if folder is None:
        if resume:
            raise InputError("training: resume needs the folder of the run")
        return run.go(None, None)
    settings = {
        **asdict(options),
        "method": type(adapted.method).__name__,
        "arguments": arguments(adapted.method),
        "base": adapted.identity,
        "examples": len(examples),
        "held_out": len(held_out),
        "about": dict(about or {}),
    }
    checkpoints = Checkpoints(Path(folder), settings)
    if checkpoints.exist() and not resume:
        raise InputError(f"{folder} holds a run that was stopped: resume it, or delete the folder to start afresh")
    return run.go(checkpoints, Journal(Path(folder)))


class _Run:
    """One run: `go` takes all steps."""

    def __init__(
        self, adapted: Adapted, task: Task, order: Order, options: Options, held_out: Sequence[Example], on_event: Callable[[Event], None]
    ) -> None:
        self._adapted = adapted
        self._worn = adapted.worn
        self._task = task
        self._order = order
        self._options = options
        self._held_out = in_order(held_out, options.batch, task.least) if held_out else []
        self._on_event = on_event
        self._total = options.total(order.per_epoch)
        self._eval_every = options.eval_every or order.per_epoch
        self._save_every = options.save_every or order.per_epoch
        self._journal: Journal | None = None
        self._progress = Progress()
        self._check_plan()

    def go(self, checkpoints: Checkpoints | None, journal: Journal | None) -> Outcome:
        """Start, or go on from the newest checkpoint."""
        found = checkpoints.newest() if checkpoints is not None else None
        self._engine = Engine(self._adapted, self._options)
        self._journal = journal
        with _training(self._adapted, self._options.checkpointing):
            # what a method reads off the examples is read again: it is the same, because the weights, the order and the seed are
            self._prepare()
            self._engine.optimise(self._adapted.trained(), self._options)
            if isinstance(self._worn, Steps):
                self._worn.begin(self._total)
            if found is not None:
                self._restore(found)
            if journal is not None:
                journal.begin(self._progress.step)
            if found is None and self._held_out:
                self._evaluate_first()
            self._take_steps(checkpoints)
        if self._options.keep == "best" and self._progress.best:
            take(self._adapted, self._progress.best)
        return self._outcome()

    def _check_plan(self) -> None:
        """The best evaluation of a planned method may lie before its plan is done."""
        earlier = self._options.patience is not None or self._options.keep == "best"
        if isinstance(self._worn, Planned) and self._held_out and earlier:
            raise InputError(
                f"{type(self._adapted.method).__name__} {self._worn.plan()}: weights of an earlier step are not what it promises; train"
                " with keep 'last' and without patience"
            )

    def _take_steps(self, checkpoints: Checkpoints | None) -> None:
        for batches in self._order.steps(self._progress.step):
            if self._progress.step >= self._total or self._out_of_patience():
                break
            event = self._step(batches)
            done, last = self._progress.step, self._progress.step == self._total
            if self._held_out and (last or done % self._eval_every == 0):
                event = replace(event, held_out=self._judge())
            self._tell(event)
            if checkpoints is not None and (last or done % self._save_every == 0):
                checkpoints.write(self._checkpoint())

    def _step(self, batches: list[list[Example]]) -> Event:
        """Gradients of all batches, then one step of the optimiser. Nothing has moved when this raises."""
        progress, options = self._progress, self._options
        started = time.perf_counter()
        prepared = [self._task.batch(batch).to(self._engine.device) for batch in batches]
        weight = sum(batch.weight for batch in prepared)
        loss = 0.0
        for batch in prepared:
            with self._engine.autocast():
                share = self._task.loss(self._adapted.model, batch) / weight
            loss += self._finite(float(share.detach()), "loss")
            self._engine.backward(share)
        penalty = self._penalise()
        self._engine.unscale()
        if isinstance(self._worn, Steps):
            self._worn.before_step()
        norm = float(nn.utils.clip_grad_norm_(self._engine.parameters, options.max_grad_norm))
        if not self._engine.scaled:  # a float16 step whose gradients overflow is left out, and its scale lowered
            self._finite(norm, "gradient")
        rate = options.rate(progress.step, self._total)
        taken = self._engine.step(rate)
        if taken and isinstance(self._worn, Steps):
            self._worn.after_step(progress.step)
        self._engine.clear()
        seconds = time.perf_counter() - started
        tokens = sum(batch.tokens for batch in prepared)
        progress.add(loss, tokens, seconds)
        return Event(progress.step, self._total, loss, penalty, rate, norm if math.isfinite(norm) else None, None, tokens, seconds)

    def _penalise(self) -> float | None:
        if not isinstance(self._worn, Penalised):
            return None
        penalty = self._worn.penalty()
        value = self._finite(float(penalty.detach()), "penalty")
        if penalty.requires_grad:
            self._engine.backward(penalty)
        return value

    def _prepare(self) -> None:
        if isinstance(self._worn, NeedsExamples):
            self._adapted.model.eval()
            self._worn.prepare(self._one_by_one)
            self._adapted.model.train()

    def _one_by_one(self) -> Iterator[Tensor]:
        for example in self._order.shuffled():
            batch = self._task.batch([example]).to(self._engine.device)
            if self._task.least > 1 and batch.targets.shape[-1] == 1:
                raise InputError(
                    f"{type(self._adapted.method).__name__} looks at one example at a time: without hard negatives an encoder learns"
                    " nothing from one; give each example 'negatives'"
                )
            with self._engine.autocast():
                loss = self._task.loss(self._adapted.model, batch) / batch.weight
            yield loss

    def _evaluate(self) -> float:
        self._adapted.model.eval()
        total, weight = 0.0, 0
        with torch.no_grad(), self._engine.autocast():
            for examples in self._held_out:
                batch = self._task.batch(examples).to(self._engine.device)
                total += float(self._task.loss(self._adapted.model, batch))
                weight += batch.weight
        self._adapted.model.train()
        return self._finite(total / weight, "held-out loss")

    def _evaluate_first(self) -> None:
        loss = self._evaluate()
        self._progress.held_out.append((0, loss))
        self._tell(Event(0, self._total, None, None, None, None, loss, 0, 0.0))

    def _judge(self) -> float:
        """Measure, and keep the weights if none were better."""
        loss = self._evaluate()
        if self._progress.judge(loss) and self._options.keep == "best":
            self._progress.best = snapshot(self._adapted)
        return loss

    def _out_of_patience(self) -> bool:
        return self._options.patience is not None and self._progress.worse >= self._options.patience

    def _finite(self, value: float, what: str) -> float:
        if math.isfinite(value):
            return value
        raise AdapterError(
            f"step {self._progress.step + 1}: the {what} is {value}; training stops and the last checkpoint stays. Train with a smaller lr"
            f" (it is {self._options.lr:g}), more warm-up, or precision float32"
        )

    def _tell(self, event: Event) -> None:
        if self._journal is not None:
            self._journal.write(event)
        self._on_event(event)

    def _checkpoint(self) -> Checkpoint:
        numbers, facts = self._engine.state()
        groups: dict[str, Mapping[str, Tensor]] = {**snapshot(self._adapted), "adapter": self._worn.state(), **numbers}
        groups |= {f"best-{group}": tensors for group, tensors in self._progress.best.items()}
        return Checkpoint(self._progress.step, groups, {"engine": facts, "progress": self._progress.facts()})

    def _restore(self, found: Checkpoint) -> None:
        if isinstance(self._worn, Steps) and not isinstance(self._worn, TrainingState):
            raise AdapterError(
                f"{type(self._adapted.method).__name__} keeps a state of its own while it trains and does not give it away: this run"
                " cannot be resumed; start it afresh"
            )
        take(self._adapted, found.tensors)
        for name, tensor in self._worn.state().items():
            expected = found.tensors.get("adapter", {}).get(name)
            if expected is None or not torch.equal(tensor.cpu(), expected):
                raise AdapterError(f"'{name}' is not what it was at step {found.step}: this run cannot be resumed; start it afresh")
        self._engine.load_state(found.tensors, found.facts["engine"])
        best = {group.removeprefix("best-"): tensors for group, tensors in found.tensors.items() if group.startswith("best-")}
        self._progress = Progress.read(found.step, found.facts["progress"], best)

    def _outcome(self) -> Outcome:
        progress = self._progress
        early = progress.step < self._total
        kept = progress.best_step if self._options.keep == "best" and progress.best else progress.step
        figures = (progress.first_loss, progress.last_loss, tuple(progress.held_out), progress.tokens, progress.seconds)
        return Outcome(progress.step, self._total, early, kept, *figures)


@contextmanager
def _training(adapted: Adapted, checkpointing: bool) -> Iterator[None]:
    """Training mode, and activations computed again where that is asked; afterwards evaluation mode."""
    base: Any = adapted.base
    if checkpointing:
        if not getattr(base, "supports_gradient_checkpointing", False):
            raise InputError(f"{type(base).__name__} cannot compute its activations again; leave checkpointing out")
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adapted.model.train()
    try:
        yield
    finally:
        if checkpointing:
            base.gradient_checkpointing_disable()
        adapted.model.eval()
