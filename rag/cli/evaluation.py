"""What `rag eval` does with its options: asks, with live progress, and shows what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rag.cli.console import err, out, plain
from rag.core.errors import ConfigError, InputError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from rag.core.pipeline import Pipeline
    from rag.evaluate.compare import Comparison
    from rag.evaluate.types import DataSet, Outcome


@dataclass(slots=True)
class Session:
    """One call of `rag eval`: the data, the folder that keeps the outcomes, and how questions are asked."""

    data: DataSet
    folder: Path
    in_flight: int
    retry_failed: bool
    first_token: bool
    rates: dict[str, float | None] = field(default_factory=dict)
    configurations: dict[str, dict[str, Any]] = field(default_factory=dict)
    _finished: dict[str, int] = field(default_factory=dict)

    def with_corpora(self, pipelines: Mapping[str, Pipeline], corpus: Path | None, encoder: str | None) -> dict[str, Pipeline]:
        """The pipelines with their corpora in place.

        Without ``corpus``, those whose corpus is not there search one of the data's own passages, kept in the run folder; with it, all
        search that one, which is made from the data's passages if it is not there.
        """
        from rag.evaluate.corpora import index_passages, missing_corpora, needs_vectors, pointed_to
        from rag.evaluate.identity import data_key
        from rag.evaluate.store import RunFolder

        with RunFolder(self.folder) as store:
            store.claim_data(data_key(self.data))
        searching = {name: pipe for name, pipe in pipelines.items() if corpus is not None or missing_corpora(pipe)}
        if not searching:
            return dict(pipelines)
        place = corpus or self.folder / "corpus"
        chosen = encoder or ("minilm" if needs_vectors(list(searching.values())) else "none")
        with err().status(f"indexing {len(self.data.passages):,} passages …"):
            made = index_passages(self.data, place, encoder=None if chosen == "none" else chosen)
        if corpus is None:
            typer.echo(f"{', '.join(searching)}: the corpus is not there; searching the {self.data.name} passages in {place}", err=True)
        elif made:
            typer.echo(f"indexed {len(self.data.passages):,} passages of {self.data.name} into {place}", err=True)
        return {
            name: pointed_to(pipe, place, only_missing=corpus is None) if name in searching else pipe for name, pipe in pipelines.items()
        }

    def ask_all(self, pipelines: Mapping[str, Pipeline]) -> dict[str, list[Outcome]]:
        """Ask each pipeline what it was not asked yet. All are checked before the first question."""
        from rag.evaluate.runner import claim, evaluate
        from rag.evaluate.store import RunFolder

        for name, pipe in pipelines.items():
            claim(pipe, self.data, folder=self.folder, name=name, first_token=self.first_token).close()
        outcomes: dict[str, list[Outcome]] = {}
        with _Bars() as bars:
            for name, pipe in pipelines.items():
                outcomes[name] = evaluate(
                    pipe,
                    self.data,
                    folder=self.folder,
                    name=name,
                    in_flight=self.in_flight,
                    retry_failed=self.retry_failed,
                    first_token=self.first_token,
                    on_progress=partial(self._progress, bars, name),
                )
        with RunFolder(self.folder) as store:
            self.rates = {name: store.rate(name) for name in pipelines}
            self.configurations = {name: store.key(name) for name in pipelines}
        return outcomes

    def kept(self) -> str:
        """How far each pipeline has come."""
        total = len(self.data.questions)
        return (
            ", ".join(f"{name}: {finished:,} of {total:,} questions kept" for name, finished in self._finished.items())
            or "nothing asked yet"
        )

    def _progress(self, bars: _Bars, name: str, finished: int, failed: int, total: int) -> None:
        self._finished[name] = finished
        bars.update(name, finished, failed, total)


class _Bars:
    """One live line per pipeline on stderr; nothing is drawn unless that is a terminal."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        screen = err()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]}", style="red"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=screen,
            disable=not screen.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> _Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, name: str, finished: int, failed: int, total: int) -> None:
        """``name`` has come so far."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(plain(name), total=total, failed="")
        self._progress.update(self._tasks[name], completed=finished, failed=f"{failed:,} failed" if failed else "")


@dataclass(frozen=True, slots=True)
class View:
    """What is shown of a comparison besides its scores, and where the figures go."""

    by: Sequence[str]
    differ: tuple[str, str] | None
    json_file: Path | None
    html_file: Path | None

    def check(self, data: DataSet, pipelines: Mapping[str, Pipeline]) -> None:
        """Raise for what could not be shown in the end, before anything is asked."""
        from rag.evaluate.breakdown import grouped

        for by in self.by:
            grouped(data.questions, by)
        for name in self.differ or ():
            if name not in pipelines:
                raise ConfigError(f"--differ {name}: there is no such pipeline here; there are: {', '.join(pipelines)}")
        for option, file in (("--json", self.json_file), ("--html", self.html_file)):
            if file is not None and (file.is_dir() or not file.absolute().parent.is_dir()):
                raise InputError(f"{option} {file}: name a file in a folder that is there")
        if self.json_file is not None and self.html_file is not None and self.json_file.resolve() == self.html_file.resolve():
            raise InputError(f"--json and --html both name {self.html_file}; name two files")

    def show(self, comparison: Comparison, session: Session, settings: Mapping[str, Any]) -> None:
        """The tables on stdout and, where wanted, the JSON file and the report."""
        from rag.evaluate import table
        from rag.evaluate.account import account
        from rag.evaluate.breakdown import breakdown, differing
        from rag.evaluate.report import write_report

        groups = {by: breakdown(comparison, by) for by in self.by}
        items = differing(comparison, *self.differ) if self.differ else []
        screen = out()
        for note in comparison.data.notes:
            err().print(f"note: {plain(note)}", style="yellow", markup=False, soft_wrap=True)
        screen.print(table.scores_table(comparison))
        if comparison.differences:
            screen.print(table.differences_table(comparison))
        screen.print(table.costs_table(comparison, session.rates))
        for by, found in groups.items():
            screen.print(table.breakdown_table(comparison, found, by))
        if self.differ:
            screen.print(table.differing_table(items, *self.differ, comparison.metrics[0]))
        for line in table.failure_lines(comparison):
            err().print(line, style="red", soft_wrap=True)
        if any(result.failed for result in comparison.results):
            err().print("--retry-failed asks the failed questions again")
        if self.json_file is not None:
            figures = account(
                comparison, configurations=session.configurations, rates=session.rates, settings=settings, groups=groups, differing=items
            )
            _write(self.json_file, json.dumps(figures, ensure_ascii=False, indent=1) + "\n")
        if self.html_file is not None:
            write_report(
                comparison, self.html_file, configurations=session.configurations, rates=session.rates, settings=settings, groups=groups
            )


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file}: cannot be written ({error.strerror})") from error
