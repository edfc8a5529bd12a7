"""The page of published results, made from the result files alone, so that it cannot say anything else than they do."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.origin import portable
from benchmarks.report import COLUMNS, NUMBERS, Row, cells, short, spreads
from benchmarks.results import EVALUATION, Record
from rag.core.errors import InputError

HEAD = """\
# Benchmarks

Made by `python -m benchmarks --only-docs` from [benchmarks/results](../benchmarks/results), never by hand. `make bench` measures all of it
anew; one benchmark alone is `python -m benchmarks NAME`. A ratio is value / peer value, both from the same run on the same machine; in
[brackets] stand the least and the most of repeated runs.
"""
FOLDER = Path(__file__).parent


def page(records: Mapping[str, Record], evaluations: Mapping[str, Mapping[str, Any]], folder: Path = FOLDER) -> str:
    """The whole page, in the order given. ``folder`` holds the benchmarks' modules, whose docstrings say what each measures.

    Raises `InputError` for an account that is not complete.
    """
    sections = [_benchmark(name, record, _first_line(folder / f"{record.benchmark}.py")) for name, record in records.items()]
    for name, account in evaluations.items():
        try:
            sections.append(_evaluation(name.removeprefix(EVALUATION), account))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{name}.json: it is not what `rag eval --json` writes ({type(error).__name__}: {error})") from error
    return "\n".join([HEAD, *sections] if sections else [HEAD, "Nothing was measured yet.\n"])


def _benchmark(name: str, record: Record, about: str) -> str:
    held: list[tuple[Row, str]] = []
    alone: list[tuple[Row, str]] = []
    for row, spread in spreads(record.rows):
        (held if row.peer else alone).append((row, spread))
    tables = []
    if held:
        tables.append(_table(COLUMNS, [cells(row, spread) for row, spread in held], NUMBERS))
    if alone:
        tables.append(_matrix(alone))
    return _section(name, [about, _origin(record.command, record.date, record.machine, record.versions), *tables])


def _matrix(rows: Sequence[tuple[Row, str]]) -> str:
    """Cases down, metrics across: figures without a peer would make a long column each."""
    names = list(dict.fromkeys(f"{row.metric}, {row.unit}" if row.unit else row.metric for row, _ in rows))
    cases: dict[str, dict[str, str]] = {}
    for row, spread in rows:
        name = f"{row.metric}, {row.unit}" if row.unit else row.metric
        cases.setdefault(row.case, {})[name] = short(row.value) + spread
    return _table(["case", *names], [[case, *(found.get(name, "") for name in names)] for case, found in cases.items()], names)


def _evaluation(name: str, account: Mapping[str, Any]) -> str:
    data, metrics = account["data"], account["metrics"]
    about = (
        f"{data['name']}: {data['questions']:,} questions, {data['passages']:,} passages; mean [95% interval] over those that did not fail."
    )
    settings = ", ".join(f"{key} {portable(value)}" for key, value in account["settings"].items() if value is not None)
    origin = _origin("rag eval", account.get("date", ""), account.get("machine", {}), account["versions"])
    rows = [
        [pipeline["name"], f"{pipeline['failed']:,}", *(_interval(pipeline["means"].get(metric)) for metric in metrics)]
        for pipeline in account["pipelines"]
    ]
    parts = [_plain(about), f"{_plain(settings)}; fingerprint of the data `{data['fingerprint']}`", origin]
    parts.append(_table(["pipeline", "failed", *metrics], rows, ["failed", *metrics]))
    if account["differences"]:
        names = ["difference", "questions", "p", "p corrected"]
        found = [
            [f"{d['pipeline']} − {d['base']}", d["metric"], _interval(d, "+"), f"{d['n']:,}", _p(d["p"]), _p(d["corrected"])]
            for d in account["differences"]
        ]
        parts.append(_table(["pipelines", "metric", *names], found, names))
    return _section(f"rag eval: {_plain(name)}", parts)


def _origin(command: str, date: str, machine: Mapping[str, Any], versions: Mapping[str, str]) -> str:
    parts = [machine.get("cpu"), _some(machine.get("cores"), "cores"), _some(machine.get("memory_gib"), "GiB"), machine.get("gpu")]
    where = ", ".join(str(part) for part in [*parts, machine.get("system")] if part)
    with_what = ", ".join(f"{name} {version}" for name, version in versions.items())
    return " · ".join(part for part in (f"`{command}`", date, _plain(where), _plain(with_what)) if part)


def _some(number: object, what: str) -> str:
    return f"{number} {what}" if number else ""


def _section(title: str, parts: Iterable[str]) -> str:
    return "\n\n".join([f"## {title}", *(part for part in parts if part)]) + "\n"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[str]) -> str:
    lines = [names, [("---:" if name in numbers else "---") for name in names], *rows]
    return "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """One line in which nothing is markup: names come from files of the user."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _interval(found: Mapping[str, float] | None, sign: str = "") -> str:
    return "–" if found is None else f"{found['mean']:{sign}.3g} [{found['low']:{sign}.3g}, {found['high']:{sign}.3g}]"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _first_line(module: Path) -> str:
    """What the module says it measures, without loading it."""
    if not module.is_file():
        return ""
    return (ast.get_docstring(ast.parse(module.read_text("utf-8"))) or "").partition("\n")[0]
