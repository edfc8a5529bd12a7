"""Trains the reader of `benchmarks.domain_gain`: a LoRA on the embedded model, stopped and resumed at will, and kept when it is done."""

from __future__ import annotations

import hashlib
import json
import shutil
import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters.reparameterised.lora.config import LoRA
from adapters.training.journal import FILE, Event, Journal
from adapters.training.options import Options
from benchmarks.files import write_whole
from benchmarks.kept import digest
from generators.models.embedded import resolve, without_progress_bars
from generators.models.wardrobe import Wardrobe

if TYPE_CHECKING:
    from torch import nn

    from adapters.adapted import Adapted
    from adapters.training.data import DataFile
    from adapters.training.trainer import Outcome

ADAPTER, DATA, FIGURES, WORKING = "adapter", "train.jsonl", "figures.json", "training"


@dataclass(frozen=True, slots=True)
class Figures:
    """What training cost and did. ``seconds_per_step`` is the median; losses are means over a step's answer tokens, in nats.

    ``base_unchanged``: whether every bit of the base model's parameters, and its fingerprint, are the same before the adapter is put on
    and after training, taking it off, putting the saved one on as the pipeline does, and taking that off.
    """

    examples: int
    steps: int
    seconds_per_step: float
    first_loss: float
    last_loss: float
    trained_share: float
    base_unchanged: bool


class Reader:
    """The LoRA ``method`` for ``model``, trained on JSON Lines, each a prompt and an answer of at most ``max_tokens`` together.

    Below ``runs`` it has a folder of its own, named by all that makes it: whatever differs is another reader.
    """

    def __init__(self, model: str, lines: Iterable[str], method: LoRA, options: Options, max_tokens: int, runs: Path) -> None:
        self._model = model
        self._content = "".join(f"{line}\n" for line in lines)
        self._method = method
        self._options = options
        self._max_tokens = max_tokens
        self.name = digest([model, self._content, asdict(method), asdict(options), max_tokens])
        self._folder = runs / f"reader-{self.name}"

    @property
    def adapter(self) -> Path:
        """Where the adapter lies once `train` is done."""
        return self._folder / ADAPTER

    def train(self) -> Figures:
        """Train what is not trained yet: all steps, those after the last checkpoint, or none. Prints its progress."""
        kept = self._folder / FIGURES
        if kept.is_file():
            return Figures(**json.loads(kept.read_text("utf-8")))
        write_whole(self._folder / DATA, self._content)
        figures = self._trained()
        write_whole(kept, json.dumps(asdict(figures), indent=1) + "\n")
        shutil.rmtree(self._folder / WORKING, ignore_errors=True)
        return figures

    def _trained(self) -> Figures:
        from adapters.adapted import adapt
        from adapters.training.card import run_card
        from adapters.training.data import read
        from adapters.training.trainer import train

        model, task = self._loaded()
        before = identity(model)
        data = read(self._folder / DATA)
        encoded = task.encode(data.records)
        adapted = adapt(model, self._method)
        working, about = self._folder / WORKING, {"data": data.sha256, "max_tokens": self._max_tokens}
        outcome = train(adapted, task, encoded.examples, self._options, (), working, True, about, _tell)
        adapted.save(self.adapter, run_card(data, None, self._max_tokens, self._options, outcome, encoded.cut))
        shutil.copyfile(working / FILE, self.adapter / FILE)
        return self._figures(adapted, outcome, data, before)

    def _figures(self, adapted: Adapted, outcome: Outcome, data: DataFile, before: str) -> Figures:
        share = adapted.report().share
        model = adapted.remove()
        wardrobe = Wardrobe(model)
        wardrobe.wearing(str(self.adapter))
        wardrobe.wearing(None)
        median = statistics.median(event.seconds for event in Journal(self._folder / WORKING).events() if event.step)
        unchanged = identity(model) == before
        return Figures(len(data.records), outcome.steps, median, outcome.first_loss, outcome.last_loss, share, unchanged)

    def _loaded(self) -> tuple[Any, Any]:
        import torch
        from accelerate.utils import set_seed  # type: ignore[import-untyped]
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from adapters.training.tasks import CausalTask

        set_seed(self._options.seed)  # LoRA's A is drawn
        folder = resolve(self._model)
        with without_progress_bars():
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return model.eval(), CausalTask(AutoTokenizer.from_pretrained(folder), self._max_tokens)


def identity(model: nn.Module) -> str:
    """SHA-256 over the names, shapes and all bytes of the parameters of ``model``, and its fingerprint (`adapters.fingerprint`)."""
    import torch

    from adapters.fingerprint import fingerprint

    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(f"{name}{tuple(parameter.shape)}{parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return f"{digest.hexdigest()} {fingerprint(model)}"


def _tell(event: Event) -> None:
    loss = "" if event.loss is None else f"loss {event.loss:.3f}, "
    print(f"step {event.step} of {event.total}: {loss}{event.seconds:.1f} s, {event.tokens_per_second:,.0f} tokens/s", flush=True)
