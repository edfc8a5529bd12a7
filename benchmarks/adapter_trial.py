"""One task for all cases of `benchmarks.adapters`: the same start, the same batches in the same order, the same number of steps.

The start is a head that was trained on the frozen model (linear probing before fine-tuning; Kumar et al. 2022, arXiv 2202.10054): a head of
random weights would first bend the features that it is to read, and most of a short run would go into that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.claims import LABELS, ClaimPairs

if TYPE_CHECKING:
    from torch import nn

    from adapters.adapted import Adapted
    from adapters.training.options import Options
    from adapters.training.tasks import Example, Task
    from benchmarks.adapter_cases import Case


@dataclass(frozen=True)
class Judged:
    """What a trained model makes of examples: which are right, as a text of 0 and 1 in their order, and the mean loss."""

    right: str
    loss: float


@dataclass(frozen=True)
class Trial:
    """``load`` gives a fresh model with a head. The parts are encoded by ``task``."""

    load: Callable[[], nn.Module]
    task: Task
    train: Sequence[Example]
    development: Sequence[Example]
    test: Sequence[Example]

    def probed(self, case: Case, options: Options) -> dict[str, Any]:
        """The weights of the head by name, as lists, after ``case``, which trains the head alone."""
        from adapters.training.trainer import train

        adapted = self.adapted(case, options)
        train(adapted, self.task, self.train, options)
        return {name: value.tolist() for name, value in adapted.worn.trained().items()}

    def beginning_with(self, head: Mapping[str, Any]) -> Trial:
        """The same task, from the head that `probed` gave."""

        def load() -> nn.Module:
            import torch

            model = self.load()
            with torch.no_grad():
                for name, value in head.items():
                    model.get_parameter(name).copy_(torch.tensor(value))
            return model

        return replace(self, load=load)

    def adapted(self, case: Case, options: Options) -> Adapted:
        """The model that wears ``case``, for a run with ``options``. Raises `AdapterError` if it cannot."""
        from accelerate.utils import set_seed  # type: ignore[import-untyped]

        from adapters.adapted import adapt

        set_seed(options.seed)  # every case begins with the same head
        return adapt(self.load(), case.method(options.total(0)), case.head)

    def developed(self, adapted: Adapted, options: Options) -> dict[str, Any]:
        """Train; the development part's figures."""
        from adapters.training.trainer import train

        outcome = train(adapted, self.task, self.train, options)
        found = self._judged(adapted, self.development, options.batch)
        return {"loss": found.loss, "right": found.right, "train_loss": outcome.last_loss, "seconds": outcome.seconds}

    def tested(self, adapted: Adapted, options: Options) -> dict[str, Any]:
        """Train; the test's figures, and what was trained."""
        from adapters.training.trainer import train

        outcome = train(adapted, self.task, self.train, options)
        found, made = self._judged(adapted, self.test, options.batch), adapted.report()
        return {
            "right": found.right,
            "loss": found.loss,
            "train_loss": outcome.last_loss,
            "seconds": outcome.seconds,
            "share": made.share,
            "exports": list(made.exports),
            "residual": adapted.to_lora().residual if "lora" in made.exports else None,
            "told": str(made),
        }

    def seconds(self, adapted: Adapted, options: Options) -> list[float]:
        """Of each step."""
        from adapters.training.trainer import train

        found: list[float] = []
        train(adapted, self.task, self.train, options, on_event=lambda event: found.append(event.seconds))
        return found

    def _judged(self, adapted: Adapted, examples: Sequence[Example], size: int) -> Judged:
        import torch

        order = sorted(range(len(examples)), key=lambda place: examples[place].length)
        right, loss = ["0"] * len(examples), 0.0
        with torch.no_grad():
            for at in range(0, len(order), size):
                places = order[at : at + size]
                batch = self.task.batch([examples[place] for place in places])
                logits = adapted.model(**batch.inputs[0]).logits
                loss += float(torch.nn.functional.cross_entropy(logits, batch.targets, reduction="sum"))
                for place, answer in zip(places, (logits.argmax(-1) == batch.targets).tolist(), strict=True):
                    right[place] = "1" if answer else "0"
        return Judged("".join(right), loss / len(examples))


def trial(folder: Path, pairs: ClaimPairs, max_tokens: int) -> Trial:
    """The claims' task for the encoder in ``folder``, in float32."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    from adapters.training.tasks import ClassificationTask

    task = ClassificationTask(AutoTokenizer.from_pretrained(folder), max_tokens, LABELS)
    parts = [task.encode(part) for part in (pairs.train, pairs.development, pairs.test)]
    sizes = ", ".join(f"{len(part.examples):,}" for part in parts)
    cut = sum(sum(part.cut.values()) for part in parts)
    print(f"pairs to train, develop and test: {sizes}; {cut} cut to {max_tokens} tokens", flush=True)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # the head is new: it is about to be trained
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]

    def load() -> nn.Module:
        model: nn.Module = AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=len(LABELS), dtype=torch.float32, use_safetensors=True
        )
        return model

    return Trial(load, task, *(part.examples for part in parts))
