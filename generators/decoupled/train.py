"""Training from scratch: encoder and decoder together, the loss on the target alone, as in the paper."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from adapters.training import randomness
from adapters.training.checkpoint import Checkpoint, Checkpoints
from adapters.training.journal import Event, Journal
from adapters.training.options import Options
from generators.decoupled.batches import IGNORED, Example, batch, drawn
from generators.decoupled.model import EncoderDecoder
from rag.core.errors import InputError, ModelError

_LEAST_SCALE = 1e-3
"""Of a tensor, lest one of zeros never moves: epsilon 2 of that section."""


@dataclass(frozen=True)
class Settings:
    """``steps`` of AdamW over ``batch`` examples each; the rate rises to ``lr`` over a share ``warmup`` of them, then falls (cosine).

    ``lr`` is relative: each tensor moves in proportion to the root mean square of its numbers (Shazeer and Stern 2018,
    https://arxiv.org/abs/1804.04235, section 8), since T5 begins with embeddings of 1 and queries of a sixtieth of that.

    In a share ``without`` of the steps no contexts are given, so that the decoder knows that case too. A checkpoint is written every
    ``save_every`` steps. Raises `InputError` for numbers out of range.
    """

    steps: int
    batch: int = 16
    lr: float = 2e-2
    warmup: float = 0.05
    without: float = 0.1
    max_grad_norm: float = 1.0
    save_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.without < 1:
            raise InputError(f"training: without is a share from 0 to below 1 of the steps, not {self.without!r}")
        self.rate(0)

    def rate(self, step: int) -> float:
        """The learning rate of step ``step``, from 0."""
        options = Options(
            lr=self.lr,
            steps=self.steps,
            batch=self.batch,
            warmup=self.warmup,
            schedule="cosine",
            max_grad_norm=self.max_grad_norm,
            seed=self.seed,
            save_every=self.save_every,
        )
        return options.rate(step, self.steps)


def train(
    model: EncoderDecoder,
    examples: Sequence[Example],
    settings: Settings,
    folder: str | Path,
    on_event: Callable[[Event], None] = lambda event: None,
) -> int:
    """Train ``model`` in place, float32; the number of steps taken now. Checkpoints and ``losses.jsonl`` lie in ``folder``.

    The same call with the model as it was created goes on where an earlier one was stopped, and ends with the very weights of one that was
    not. The global random generator is seeded. Raises `ModelError` when the loss is not finite, `InputError`, and what `Checkpoints`
    raises: `AdapterMismatch` if the folder is of another run.
    """
    if not examples:
        raise InputError("training needs one example or more")
    network = model.model
    named: dict[str, Tensor] = dict(network.named_parameters())
    groups = [{"params": [parameter]} for parameter in named.values()]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, weight_decay=0.0)
    about = {"model": model.identity.weights, "examples": hashlib.sha256(repr(list(examples)).encode()).hexdigest()}
    checkpoints, journal = Checkpoints(Path(folder), {**asdict(settings), **about}), Journal(Path(folder))
    torch.manual_seed(settings.seed)
    first = _restored(checkpoints.newest(), named, optimizer)
    journal.begin(first)
    network.train()
    try:
        for step in range(first, settings.steps):
            event = _step(model, examples, settings, step, optimizer)
            journal.write(event)
            on_event(event)
            if (step + 1) % settings.save_every == 0 or step + 1 == settings.steps:
                checkpoints.write(_checkpoint(step + 1, named, optimizer))
    finally:
        network.eval()
    return settings.steps - first


def _step(model: EncoderDecoder, examples: Sequence[Example], settings: Settings, step: int, optimizer: Any) -> Event:
    started = time.perf_counter()
    chosen = [examples[at] for at in drawn(len(examples), settings.batch, settings.seed, step)]
    if random.Random(f"{settings.seed} {step} without").random() < settings.without:
        chosen = [Example((), example.prefix, example.target) for example in chosen]
    rows = batch(chosen, model.start, model.separator, model.device)
    loss = cross_entropy(model.target_logits(rows), rows.labels[rows.labels != IGNORED])
    if not math.isfinite(float(loss.detach())):
        raise ModelError(f"step {step + 1}: the loss is {float(loss.detach())}; the last checkpoint stays. Train with a smaller lr")
    loss.backward()  # type: ignore[no-untyped-call]
    norm = float(torch.nn.utils.clip_grad_norm_(model.model.parameters(), settings.max_grad_norm))
    rate = settings.rate(step)
    for group in optimizer.param_groups:
        (parameter,) = group["params"]
        group["lr"] = rate * max(_LEAST_SCALE, float(parameter.detach().square().mean().sqrt()))
    optimizer.step()
    optimizer.zero_grad()
    seconds = time.perf_counter() - started
    return Event(step + 1, settings.steps, float(loss.detach()), None, rate, norm, None, rows.tokens, seconds)


def _checkpoint(step: int, named: dict[str, Tensor], optimizer: Any) -> Checkpoint:
    names = list(named)
    held = optimizer.state_dict()["state"]
    moments = {f"{names[number]}/{part}": value for number, entry in held.items() for part, value in entry.items()}
    generators, words = randomness.capture()
    trained = {name: parameter.detach() for name, parameter in named.items()}
    return Checkpoint(step, {"trained": trained, "optimizer": moments, "random": generators}, {"random": words})


def _restored(found: Checkpoint | None, named: dict[str, Tensor], optimizer: Any) -> int:
    if found is None:
        return 0
    numbers = {name: number for number, name in enumerate(named)}
    held: dict[int, dict[str, Tensor]] = {}
    for key, tensor in found.tensors.get("optimizer", {}).items():
        name, _, part = key.rpartition("/")
        held.setdefault(numbers[name], {})[part] = tensor
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(found.tensors["trained"][name])
    optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})
    randomness.restore(dict(found.tensors["random"]), dict(found.facts["random"]))
    return found.step
