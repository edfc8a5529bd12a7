"""What ``rag train`` does once its options are read: base model, data, the run with a live line, the account."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from adapters.additive.link_tokens.config import LinkTokens
from adapters.training.blocks import APART, BlockTask
from adapters.training.card import run_card
from adapters.training.data import FORMS, Answered, Grounded, Labelled, read
from adapters.training.journal import FILE, Event
from adapters.training.options import Options
from adapters.training.tasks import CausalTask, ClassificationTask, ContrastiveTask, Encoded, Seq2SeqTask, Task
from rag.cli.bases import base_folder
from rag.cli.console import err, size
from rag.core.errors import ConfigError, GraftError, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

    from adapters.adapted import Adapted
    from adapters.contract import Method
    from adapters.training.trainer import Outcome

_MAX_TOKENS = 512
_WRITES = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


class Training:
    """One call of ``rag train``. The data are read and checked here, before a model is loaded."""

    def __init__(self, base: str, data: Path, held_out: Path | None, max_tokens: int | None, options: Options) -> None:
        self._base = base
        self._data = read(data)
        self._held_out = read(held_out) if held_out is not None else None
        self._options = options
        if self._held_out is not None and type(self._held_out.records[0]) is not type(self._data.records[0]):
            raise ConfigError(f"{held_out} is of another form than {data}: both are of the same")
        self._labels = sorted({record.label for record in self._data.records if isinstance(record, Labelled)})
        self._attention = APART if isinstance(self._data.records[0], Grounded) else ""
        self._max_tokens = max_tokens

    def run(self, method: Method, out: Path, working: Path, resume: bool) -> dict[str, Any]:
        """Train, save the adapter in ``out``, and tell what came of it."""
        from accelerate.utils import set_seed  # type: ignore[import-untyped]

        from adapters.adapted import adapt
        from adapters.training.trainer import train

        if isinstance(method, LinkTokens) and not self._attention:
            raise ConfigError(f"--method {type(method).__name__}: its tokens stand behind passages; give data with passages ({FORMS})")
        set_seed(self._options.seed)  # a head and a method's start are drawn
        model, task, max_tokens = self._loaded(method)
        examples, held_out = task.encode(self._data.records), self._encoded(task)
        _tell_cut(examples, max_tokens)
        adapted = adapt(model, method)
        if self._attention:
            _check_stitched(adapted)
        about = {"data": self._data.sha256, "eval": self._held_out.sha256 if self._held_out else None, "max_tokens": max_tokens}
        about |= {"attention": self._attention} if self._attention else {}
        with _bar() as on_event:
            outcome = train(adapted, task, examples.examples, self._options, held_out, working, resume, about, on_event)
        card = run_card(self._data, self._held_out, max_tokens, self._options, outcome, examples.cut, self._labels, self._attention)
        adapted.save(out, card)
        shutil.copyfile(working / FILE, out / FILE)
        return _account(adapted, outcome, out, examples)

    def _encoded(self, task: Task) -> list[Any]:
        return task.encode(self._held_out.records).examples if self._held_out is not None else []

    def _loaded(self, method: Method) -> tuple[Any, Task, int]:
        folder = base_folder(self._base)
        try:
            config = AutoConfig.from_pretrained(folder)
            tokenizer = AutoTokenizer.from_pretrained(folder)
            max_tokens = self._room(config)
            self._check_writes(config)
            task = None if self._attention else self._task(tokenizer, config, max_tokens)
            with _quiet():
                model = self._model(folder, config)
        except GraftError:
            raise
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(f"--base {self._base}: {folder} cannot be loaded: {error}") from error
        return model, task or self._apart(model, tokenizer, max_tokens, method), max_tokens

    def _apart(self, model: Any, tokenizer: Any, max_tokens: int, method: Method) -> Task:
        """For passages that do not see each other. Raises `MissingCapability` for a model whose caches cannot be stitched."""
        from generators.models.stitched.decoder import Decoder
        from generators.models.stitched.lessons import Lessons

        decoder = Decoder(model.eval(), tokenizer, self._base)
        links = method.ids(decoder.vocabulary) if isinstance(method, LinkTokens) else ()
        return BlockTask(tokenizer, max_tokens, Lessons(decoder).prompt, links=links)

    def _task(self, tokenizer: Any, config: Any, max_tokens: int) -> Task:
        first = self._data.records[0]
        if isinstance(first, Labelled):
            self._labels = _in_order_of(config, self._labels)
            return ClassificationTask(tokenizer, max_tokens, self._labels)
        if not isinstance(first, Answered):
            return ContrastiveTask(tokenizer, max_tokens)
        return Seq2SeqTask(tokenizer, max_tokens) if config.is_encoder_decoder else CausalTask(tokenizer, max_tokens)

    def _check_writes(self, config: Any) -> None:
        if not isinstance(self._data.records[0], Answered | Grounded):
            return
        written = config.architectures or [""]
        if not written[0].endswith(_WRITES):
            raise ConfigError(f"--base {self._base} ({written[0] or config.model_type}) writes no text, and the data have answers to write")
        if self._attention and config.is_encoder_decoder:
            raise ConfigError(f"--base {self._base} reads all passages in an encoder; data with passages are for a decoder-only model")

    def _model(self, folder: str, config: Any) -> Any:
        import torch

        how = {"dtype": torch.float32, "use_safetensors": True}
        first = self._data.records[0]
        if isinstance(first, Answered | Grounded):
            kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
            return kind.from_pretrained(folder, **how)
        if isinstance(first, Labelled):
            numbers = dict(enumerate(self._labels))
            names = {"id2label": numbers, "label2id": {label: number for number, label in numbers.items()}}
            return AutoModelForSequenceClassification.from_pretrained(folder, **names, **how)
        return AutoModel.from_pretrained(folder, **how)

    def _room(self, config: Any) -> int:
        window = int(getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or _MAX_TOKENS)
        if self._max_tokens is not None and self._max_tokens > window:
            raise ConfigError(f"--max-tokens {self._max_tokens} is more than {self._base} reads: {window}")
        return self._max_tokens or (window if self._attention else min(_MAX_TOKENS, window))


def _check_stitched(adapted: Adapted) -> None:
    """Vectors in front of the prompt, or of the keys, have no place in a stitched cache."""
    from adapters.additive.aprompt.config import APrompt
    from adapters.peft_methods import PeftPrompt

    if isinstance(adapted.worn, PeftPrompt) or isinstance(adapted.method, APrompt):
        raise ConfigError(
            f"--method {type(adapted.method).__name__} puts vectors in front of what is read, and passages that are encoded apart have none"
            " there; take a method that changes layers, such as LoRA"
        )


def _in_order_of(config: Any, labels: list[str]) -> list[str]:
    """The model's own order, where it was trained for the same labels before."""
    own = [str(config.id2label[number]) for number in sorted(config.id2label)]
    return own if sorted(own) == labels else labels


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers warns that a fresh head has to be trained, which is what we are about to do."""
    from transformers.utils import logging

    from generators.models.embedded import without_progress_bars

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        with without_progress_bars():
            yield
    finally:
        logging.set_verbosity(level)


@contextmanager
def _bar() -> Iterator[Callable[[Event], None]]:
    """A live line on stderr: steps, loss, tokens a second. Nothing is drawn unless that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    screen = err()
    columns = (TextColumn("steps"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    with Progress(*columns, console=screen, disable=not screen.is_terminal) as progress:
        line = progress.add_task("", total=None, told="")
        held_out = ""

        def show(event: Event) -> None:
            nonlocal held_out
            if event.held_out is not None:
                held_out = f"  held out {event.held_out:.4f}"
            loss = f"loss {event.loss:.4f}  {event.tokens_per_second:,.0f} tokens/s" if event.loss is not None else ""
            progress.update(line, completed=event.step, total=event.total, told=loss + held_out)

        yield show


def _tell_cut(encoded: Encoded, max_tokens: int) -> None:
    for part, number in sorted(encoded.cut.items()):
        err().print(f"{number:,} of {len(encoded.examples):,} examples: the {part} was cut, to {max_tokens:,} tokens in all (--max-tokens)")


def _account(adapted: Adapted, outcome: Outcome, out: Path, encoded: Encoded) -> dict[str, Any]:
    report = adapted.report()
    return {
        "adapter": str(out),
        "method": report.method,
        "trained": report.trained,
        "parameters": report.total,
        "bytes": report.bytes,
        "exports": list(report.exports),
        "examples": len(encoded.examples),
        "cut": dict(encoded.cut),
        "steps": outcome.steps,
        "stopped_early": outcome.early,
        "kept_step": outcome.kept,
        "first_loss": outcome.first_loss,
        "last_loss": outcome.last_loss,
        "held_out": [{"step": step, "loss": loss} for step, loss in outcome.held_out],
        "tokens": outcome.tokens,
        "seconds": round(outcome.seconds, 3),
    }


def show_account(account: dict[str, Any]) -> None:
    """The account as a table on stdout."""
    from rich.table import Table
    from rich.text import Text

    from rag.cli.console import out, plain

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    share = account["trained"] / max(1, account["parameters"])
    table.add_row("adapter", Text(f"{plain(account['adapter'])}: {account['method']}, {size(account['bytes'])}"))
    table.add_row("trained", f"{account['trained']:,} of {account['parameters']:,} parameters ({share:.3%})")
    early = ", stopped early" if account["stopped_early"] else ""
    table.add_row("steps", f"{account['steps']:,} over {account['examples']:,} examples{early}; kept: step {account['kept_step']:,}")
    table.add_row("loss", f"{account['first_loss']:.4f} at first, {account['last_loss']:.4f} at last")
    if account["held_out"]:
        told = ", ".join(
            f"{entry['loss']:.4f} (step {entry['step']:,})" for entry in account["held_out"][:1] + account["held_out"][1:][-3:]
        )
        table.add_row("held out", told)
    rate = account["tokens"] / account["seconds"] if account["seconds"] else 0.0
    table.add_row("time", f"{account['seconds']:.1f} s, {rate:,.0f} tokens/s")
    table.add_row("exports", ", ".join(account["exports"]) or "none: it is worn in this process only")
    out().print(table, soft_wrap=True)
