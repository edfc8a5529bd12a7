"""``rag eval``: pipelines measured on a data set, side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rag.cli.evaluation import Session, View
from rag.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline
    from rag.evaluate.types import DataSet

_COSTS = ("calls", "prompt_tokens", "generated_tokens", "seconds")


def evaluate(
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="PIPELINE", help="Pipeline files (with --list: a folder).", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(help="File or folder of the data set, or hub:NAME.", show_default=False)] = None,
    pipelines: Annotated[
        list[Path] | None, typer.Option(help="Pipeline files; the first is what the others are compared with.", show_default=False)
    ] = None,
    format: Annotated[str | None, typer.Option(help="Format of the data. \\[default: told from the content]")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Names with commas between. \\[default: those of the data set, and costs]")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many questions.", show_default=False)] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="Only so many questions, drawn at random.", show_default=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample and the intervals.")] = 0,
    in_flight: Annotated[int, typer.Option(min=1, help="Questions asked at a time.")] = 64,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder that keeps the outcomes. \\[default: results/NAME of the data]")
    ] = None,
    corpus: Annotated[
        Path | None,
        typer.Option(
            "--corpus", "-c", help="Corpus for all pipelines; made from the data's passages if it is missing.", show_default=False
        ),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="Of a corpus that is made here, as in `rag index`. \\[default: minilm if a pipeline needs vectors]")
    ] = None,
    by: Annotated[
        list[str] | None, typer.Option(help="Break down by type, answerable or a field of the data. Repeatable.", show_default=False)
    ] = None,
    differ: Annotated[
        tuple[str, str] | None, typer.Option(metavar="A B", help="Show the questions on which two pipelines differ.", show_default=False)
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask questions that failed again.")] = False,
    first_token: Annotated[bool, typer.Option("--first-token", help="Stream, and measure the time to the first token.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file as well.", show_default=False)] = None,
    html_file: Annotated[
        Path | None, typer.Option("--html", help="Write a report with plots and every question to this file.", show_default=False)
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="List formats; with a folder, the data sets in it.")] = False,
) -> None:
    """Measure pipelines on a data set: scores with intervals, and which differences are more than chance. Run it again to resume.

    Example:  rag eval --data squad.json --pipelines direct.yaml cited.yaml --sample 200
    """
    if listing:
        _list(more or [])
        return
    files = [*(pipelines or []), *(more or [])]
    if data is None or not files:
        raise ConfigError("name --data FILE and --pipelines FILE …; `rag eval --list` shows the formats")
    from rag.evaluate.compare import compare
    from rag.evaluate.datasets import load
    from rag.evaluate.metrics import check_fit

    loaded = load(data, format=format, limit=limit, sample=sample, seed=seed)
    names = _metrics(metrics, loaded, first_token)
    check_fit(loaded.questions, names)
    pipes = _pipelines(files)
    view = View(by or [], differ, json_file, html_file)
    view.check(loaded, pipes)
    folder = out or Path("results") / _folder_name(loaded.name, limit, sample, seed)
    session = Session(loaded, folder, in_flight, retry_failed, first_token)
    try:
        outcomes = session.ask_all(session.with_corpora(pipes, corpus, encoder))
    except KeyboardInterrupt:
        typer.echo(f"stopped; {session.kept()} in {folder}; run the same command to resume", err=True)
        raise typer.Exit(130) from None
    settings = {"data": _origin(data), "limit": limit, "sample": sample, "in_flight": in_flight}
    view.show(compare(loaded, outcomes, names, seed=seed), session, settings)


def _list(folders: Sequence[Path]) -> None:
    from rich.table import Table
    from rich.text import Text

    from rag.cli.console import out, plain
    from rag.evaluate.datasets import catalogue

    if len(folders) > 1:
        raise ConfigError("--list takes one folder, or none for the formats")
    entries = catalogue(folders[0]) if folders else catalogue()
    if not entries:
        raise InputError(f"{folders[0]}: no data set of a known format is in this folder; `rag eval --list` shows the formats")
    table = Table(box=None, pad_edge=False)
    columns = ("name", "format", "files", "size", "licence", "what") if folders else ("format", "files", "licence", "what")
    for column in columns:
        table.add_column(column, overflow="fold")
    for entry in entries:
        table.add_row(*(Text(plain(str(getattr(entry, column)))) for column in columns))
    out().print(table)


def _metrics(given: Sequence[str] | None, data: DataSet, first_token: bool) -> list[str]:
    from rag.evaluate.metrics import metric

    named = [name.strip() for text in given or () for name in text.split(",") if name.strip()]
    if given and not named:
        raise ConfigError("--metrics: name at least one, such as --metrics exact_match,f1")
    if not named:  # the usual ones of a format may not fit every selection from it
        usual = [name for name in data.metrics if any(metric(name).fits(question) for question in data.questions)]
        named = [*usual, *_COSTS]
    return list(dict.fromkeys([*named, *(["first_token"] if first_token else [])]))


def _pipelines(files: Sequence[Path]) -> dict[str, Pipeline]:
    from rag.core.pipeline import Pipeline

    pipes: dict[str, Pipeline] = {}
    for file in files:
        if file.stem in pipes:
            raise ConfigError(f"{file}: two pipelines are called '{file.stem}'; their files need different names")
        pipes[file.stem] = Pipeline.from_yaml(file)
    return pipes


def _origin(data: str) -> str:
    """Where the data came from, as it may be published: an address of the hub, or the last parts of a path. The fingerprint is exact."""
    return data if data.startswith("hub:") else "/".join(Path(data).resolve().parts[1:][-2:])


def _folder_name(name: str, limit: int | None, sample: int | None, seed: int) -> str:
    """A folder for each selection of a data set, because a folder belongs to one."""
    chosen = f"-first{limit}" if limit is not None else f"-sample{sample}-seed{seed}" if sample is not None else ""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") + chosen
