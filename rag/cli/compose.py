"""``rag compose``: LoRAHub on the adapters of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rag.cli.adapters import RegistryOption
from rag.cli.bases import load_base
from rag.cli.options import JsonOption
from rag.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adapters.lorahub import LoRAHub
    from adapters.lorahub.composed import Composed
    from adapters.training.data import Answered

Choice = Literal["random", "similar", "loss"]


def compose(
    examples: Annotated[Path, typer.Argument(help='The task: JSONL of {"prompt", "answer"}, five or so lines.', show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the composed LoRA.", show_default=False)],
    base: Annotated[str, typer.Option(help="Base model: smollm2, a folder, or a Hugging Face id.")] = "smollm2",
    adapter: Annotated[
        list[str] | None, typer.Option("--adapter", "-a", help="Compose this one; again for more. \\[default: chosen]", show_default=False)
    ] = None,
    choose: Annotated[
        Choice, typer.Option(help="How adapters are chosen: at random, by their cards, by the loss of each alone.")
    ] = "random",
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many adapters are chosen.")] = 20,
    evaluations: Annotated[int, typer.Option(min=2, max=100_000, help="Evaluations of the search.")] = 40,
    norm: Annotated[Literal["mean", "sum"], typer.Option(help="Penalty: mean |w| (released code) or sum |w| (paper).")] = "mean",
    search: Annotated[Literal["cobyla", "nevergrad"], typer.Option(help="The search.")] = "cobyla",
    encoder: Annotated[str, typer.Option(help="Encoder of --choose similar: minilm, a folder, or a Hugging Face id.")] = "minilm",
    seed: Annotated[int, typer.Option(min=0, help="Of the choice at random.")] = 0,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Weight LoRAs that are there for a new task, by a few of its examples (LoRAHub), and write the result as one plain LoRA.

    Example:  rag compose task.jsonl --out composed --adapter chemistry --adapter units
    """
    from adapters.lorahub import LoRAHub, read_examples
    from rag.cli.console import write_json

    few = read_examples(examples)
    hub = LoRAHub(evaluations=evaluations, norm=norm, search=search, seed=seed)
    named = _folders(registry, adapter)
    model, tokenizer = load_base(base, "float32")
    if tokenizer is None:
        raise InputError(f"{base} has no tokenizer; save one beside the model")
    chosen = named if adapter else _chosen(choose, count, named, few, hub, model, tokenizer, encoder)
    composed = _composed(hub, model, tokenizer, few, chosen)
    composed.save(out)
    account = {
        "folder": str(out),
        "start": composed.start,
        "best": composed.best,
        "evaluations": len(composed.values),
        "weights": [{"name": source.name, "weight": weight} for source, weight in zip(composed.sources, composed.weights, strict=True)],
    }
    write_json(account) if as_json else _show(account)


def _folders(registry: Path | None, names: list[str] | None) -> list[Path]:
    """The adapters that were named, or all LoRAs of the registry."""
    from adapters.registry import Registry

    store = Registry(registry)
    if names:
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise InputError(f"--adapter names {', '.join(repeated)} more than once")
        return [store.path(name) for name in names]
    found = [entry.folder for entry in store.entries() if entry.method == "LoRA"]
    if not found:
        raise InputError(f"there are no LoRAs in {store.folder}; `rag adapters add FOLDER` takes them in")
    return found


def _chosen(
    how: Choice, count: int, folders: list[Path], examples: Sequence[Answered], hub: LoRAHub, model: Any, tokenizer: Any, encoder: str
) -> list[Path]:
    from adapters.lorahub import candidates

    if how == "random":
        return candidates.at_random(folders, count, hub.seed)
    if how == "similar":
        from retrievers.encoders import SentenceEncoder

        return candidates.by_similarity(folders, examples, SentenceEncoder(encoder).encode, count)
    return candidates.by_loss_on(model, tokenizer, folders, examples, count, hub.batch, hub.max_tokens)


def _composed(hub: LoRAHub, model: Any, tokenizer: Any, examples: Sequence[Answered], folders: list[Path]) -> Composed:
    from rich.progress import Progress

    from rag.cli.console import err

    with Progress(console=err(), transient=True, disable=not err().is_terminal) as bar:
        task = bar.add_task("searching", total=hub.evaluations)

        def told(number: int, value: float, best: float) -> None:
            bar.update(task, completed=number + 1, description=f"loss {value:.4f}, best {best:.4f}")

        return hub.compose(model, tokenizer, examples, folders, told)


def _show(account: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    from rag.cli.console import err, out, plain

    table = Table("adapter", "weight", box=None, pad_edge=False)
    for row in sorted(account["weights"], key=lambda row: -abs(row["weight"])):
        table.add_row(Text(plain(row["name"])), Text(f"{row['weight']:+.3f}"))
    out().print(table, soft_wrap=True)
    start, best = account["start"], account["best"]
    err().print(f"loss {start:.4f} without, {best:.4f} with; wrote {account['folder']}", soft_wrap=True, markup=False)
    if best == start:
        err().print("no composition did better than the base model: all weights are 0", soft_wrap=True, markup=False)
