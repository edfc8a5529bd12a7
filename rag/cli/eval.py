"""``rag eval``: pipelines measured on a data set, side by side."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rag.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline
    from rag.evaluate.compare import Comparison
    from rag.evaluate.types import DataSet, Outcome

_COSTS = ("calls", "prompt_tokens", "generated_tokens", "seconds")


def evaluate(
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[PIPELINE]...", help="Pipeline files (with --list: a folder).", show_default=False)
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
    seed: Annotated[int, typer.Option(help="Of the sample and the intervals.")] = 0,
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
    from rag.evaluate.datasets import load
    from rag.evaluate.metrics import check_fit

    loaded = load(data, format=format, limit=limit, sample=sample, seed=seed)
    names = _metrics(metrics, loaded, first_token)
    check_fit(loaded.questions, names)
    pipes = _pipelines(files)
    for name in differ or ():
        if name not in pipes:
            raise ConfigError(f"--differ {name}: there is no such pipeline here; there are: {', '.join(pipes)}")
    if json_file is not None and not json_file.absolute().parent.is_dir():
        raise InputError(f"--json {json_file}: there is no such folder")
    folder = out or Path("results") / _folder_name(loaded.name, limit, sample, seed)
    session = _Session(loaded, folder, in_flight, retry_failed, first_token)
    outcomes = session.run(session.with_corpora(pipes, corpus, encoder))

    from rag.cli.evaluation import show, write_account
    from rag.evaluate.compare import compare

    comparison = compare(loaded, outcomes, names, seed=seed)
    settings = {"data": data, "limit": limit, "sample": sample, "in_flight": in_flight}
    show(comparison, session.rates, by or [], differ)
    if json_file is not None:
        write_account(json_file, comparison, session.keys, session.rates, settings, by or [], differ)


"""
"""
