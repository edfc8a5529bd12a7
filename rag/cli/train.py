"""``rag train``: an adapter for a frozen model, learnt from a file of examples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rag.cli.options import JsonOption
from rag.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from adapters.contract import Method


def train(
    data: Annotated[Path, typer.Option(help="Examples to learn from: JSON Lines.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the adapter, new.", show_default=False)],
    base: Annotated[str, typer.Option(help="smollm2, minilm, a model folder, or a Hugging Face id.")] = "smollm2",
    held_out: Annotated[
        Path | None, typer.Option("--eval", help="Held-out examples: the weights that do best on them are kept.", show_default=False)
    ] = None,
    method: Annotated[str, typer.Option(help="Name of the method; a wrong one lists all.")] = "LoRA",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the method. Repeatable.", show_default=False)
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-4,
    epochs: Annotated[int, typer.Option(min=1, help="Times through the data.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the optimiser, instead of epochs.", show_default=False)] = None,
    batch: Annotated[int, typer.Option(min=1, help="Examples that are computed at once.")] = 8,
    accumulate: Annotated[int, typer.Option(min=1, help="Batches that make one step.")] = 1,
    warmup: Annotated[float, typer.Option(help="Share of the steps in which the learning rate rises.")] = 0.06,
    schedule: Annotated[Literal["linear", "cosine", "constant"], typer.Option(help="How the learning rate falls.")] = "linear",
    max_grad_norm: Annotated[float, typer.Option(help="Gradients are cut to this norm.")] = 1.0,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.0,
    max_tokens: Annotated[
        int | None, typer.Option(min=8, help="Longer examples are cut. \\[default: 512; with passages, the window]", show_default=False)
    ] = None,
    precision: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the computation.")] = "float32",
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Compute activations twice to save memory.")] = False,
    eval_every: Annotated[int | None, typer.Option(min=1, help="Steps between evaluations. \\[default: an epoch]")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many evaluations without a better one.", show_default=False)
    ] = None,
    save_every: Annotated[int | None, typer.Option(min=1, help="Steps between checkpoints. \\[default: an epoch]")] = None,
    keep: Annotated[Literal["best", "last"], typer.Option(help="Which weights, where there is --eval.")] = "best",
    seed: Annotated[int, typer.Option(min=0, help="Of the start and of the order.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Train what a frozen model wears. Lines of the data: {"prompt", "answer"}, {"text", "label"}, {"question", "positive", "negatives"},
    or {"passages", "question", "answer"}, whose passages do not see each other, as for `Stitched`.

    Example:  rag train --base smollm2 --data train.jsonl --eval eval.jsonl --method lora --set r=16 --set alpha=32 --out skill
    """
    from rag.cli.console import err, write_json

    chosen = _method(method, settings or [])
    working = out.with_name(f"{out.name}.training")
    _check_out(out, working, resume)
    try:
        from adapters.training.options import Options
        from rag.cli.training import Training, show_account
    except ImportError as error:
        from rag.core.errors import MissingDependency

        raise MissingDependency(f"training needs torch and transformers ({error}): pip install 'graft-rag[cpu,adapters]'") from error
    options = Options(
        lr=lr,
        epochs=epochs,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        warmup=warmup,
        schedule=schedule,
        max_grad_norm=max_grad_norm,
        weight_decay=weight_decay,
        seed=seed,
        precision=precision,
        checkpointing=checkpointing,
        eval_every=eval_every,
        patience=patience,
        save_every=save_every,
        keep=keep,
    )
    if patience is not None and held_out is None:
        raise ConfigError("--patience needs --eval: without held-out examples nothing tells when to stop")
    training = Training(base, data, held_out, max_tokens, options)
    try:
        account = training.run(chosen, out, working, resume)
    except KeyboardInterrupt:
        err().print("stopped; run the same command with --resume to go on from the last checkpoint")
        raise typer.Exit(130) from None
    shutil.rmtree(working, ignore_errors=True)
    write_json(account) if as_json else show_account(account)


def _method(name: str, settings: list[str]) -> Method:
    from adapters.methods import build, names

    known = {each.lower(): each for each in names()}
    given: dict[str, Any] = {}
    for text in settings:
        option, sign, value = text.partition("=")
        if not sign or not option:
            raise ConfigError(f"--set {text}: write NAME=VALUE, such as --set r=16")
        if option in given:
            raise ConfigError(f"--set {option} was given twice")
        given[option] = _value(value)
    try:
        return build(known.get(name.lower(), name), given)
    except TypeError as error:
        raise InputError(f"--method {name}: {error}") from error


def _value(text: str) -> Any:
    """A number, true, false, null or a JSON list; else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _check_out(out: Path, working: Path, resume: bool) -> None:
    if out.exists() and not (resume and working.exists()):
        raise InputError(f"{out} is there already; name a new folder with --out")
    if working.exists() and not resume:
        raise InputError(f"{working} holds a run that was stopped: add --resume to go on, or delete it to start afresh")
