"""What every benchmark prints and writes: rows of one shape, as a table and, with ``--json FILE``, as a record.

The record says what is needed to measure it again: ``{"format", "benchmark", "command", "date", "machine", "versions", "settings",
"rows"}``. `benchmarks.results` reads it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.files import write_whole
from benchmarks.origin import command_line, portable
from rag.core.errors import ConfigError
from rag.evaluate.machine import date, machine, versions

FORMAT = 1
COLUMNS = ("case", "metric", "value", "unit", "peer", "peer value", "ratio")
NUMBERS = ("value", "peer value", "ratio")
"""The columns that are aligned at the right."""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``ratio`` is value / peer_value, both from the same run; ``peer`` says what it is held against.

    Where a figure is the median of several runs, ``metric_min`` and ``metric_max`` of the same case are rows too.
    """

    benchmark: str
    case: str
    metric: str
    value: float
    unit: str = ""
    peer: str = ""
    peer_value: float | None = None

    @property
    def ratio(self) -> float | None:
        """``value / peer_value``, or None without a peer."""
        return self.value / self.peer_value if self.peer_value else None


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser that knows ``--json FILE``."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--json", type=Path, metavar="FILE", help="write the rows here too, with settings, machine and versions")
    return result


def report(rows: Sequence[Row], options: argparse.Namespace, *packages: str) -> None:
    """Print ``rows`` as a table and write them to ``options.json`` if that is given.

    ``options`` are the parsed ones; ``packages`` the distributions whose versions matter to these figures (those that are not installed
    are left out). Raises `ConfigError` if there are no rows or one is no number: that is no result, and an old one stays as it is.
    """
    if not rows:
        raise ConfigError("the benchmark measured nothing; nothing is written")
    for row in rows:
        if not math.isfinite(row.value) or not math.isfinite(row.peer_value or 0):
            raise ConfigError(f"{row.benchmark}, {row.case}: {row.metric} is {row.value} against {row.peer_value}; nothing is written")
    screen().print(table(rows, rows[0].benchmark))
    if options.json is not None:
        write_whole(options.json, json.dumps(record(rows, options, packages), indent=1, ensure_ascii=False) + "\n")


def record(rows: Sequence[Row], options: argparse.Namespace, packages: Iterable[str]) -> dict[str, Any]:
    """What is kept of a run, JSON-ready."""
    return {
        "format": FORMAT,
        "benchmark": rows[0].benchmark,
        "command": command_line(sys.argv[1:]),
        "date": date(),
        "machine": machine(),
        "versions": versions(packages),
        "settings": {name: portable(value) for name, value in vars(options).items() if name != "json"},
        "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
    }


def screen() -> Console:
    """The terminal; a log has no width, so that nothing may be cut there."""
    console = Console()
    return console if console.is_terminal else Console(width=180)


def table(rows: Sequence[Row], title: str, *, named: bool = False) -> Table:
    """The rows with their spreads; ``named`` adds the benchmark's name, for a table of several."""
    result = Table(title=escape(title))
    for name in ("benchmark", *COLUMNS) if named else COLUMNS:
        result.add_column(name, no_wrap=True, justify="right" if name in NUMBERS else "left")
    before = ""
    for row, spread in spreads(rows):
        if before not in ("", row.benchmark):
            result.add_section()
        before = row.benchmark
        result.add_row(*([row.benchmark] if named else []), *(escape(cell) for cell in cells(row, spread)))
    return result


def spreads(rows: Sequence[Row]) -> list[tuple[Row, str]]:
    """Each row with " [least–most]" where its case has these rows too; they are not listed again."""
    found = {(row.benchmark, row.case, row.metric): row for row in rows}
    folded: set[tuple[str, str, str]] = set()
    texts: dict[tuple[str, str, str], str] = {}
    for place in found:
        ends = [(*place[:2], f"{place[2]}_{end}") for end in ("min", "max")]
        if all(end in found for end in ends):
            texts[place] = f" [{short(found[ends[0]].value)}–{short(found[ends[1]].value)}]"
            folded.update(ends)
    return [(row, texts.get(place, "")) for place, row in found.items() if place not in folded]


def cells(row: Row, spread: str) -> tuple[str, ...]:
    """The row under `COLUMNS`."""
    peer_value = "" if row.peer_value is None else short(row.peer_value)
    ratio = "" if row.ratio is None else f"{row.ratio:.3g}"
    return row.case, row.metric, short(row.value) + spread, row.unit, row.peer, peer_value, ratio


def short(value: float) -> str:
    """Four digits, or all of those before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
