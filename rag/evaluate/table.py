"""The comparison as tables for a terminal. They are rich renderables: colours and borders are the console's business."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag.evaluate.breakdown import Differing, Group
from rag.evaluate.compare import Comparison, Difference, Estimate, is_cost

if TYPE_CHECKING:
    from rich.table import Table

SHOWN = 20
"""Questions that a table of differences shows."""
SIGNIFICANT = 0.05

_CELL = 160
_ERRORS = 3


def scores_table(comparison: Comparison) -> Table:
    """One row per pipeline: how many questions failed, and each score's mean with its 95% interval."""
    scores = [name for name in comparison.metrics if not is_cost(name)]
    table = _table(f"{plain(comparison.data.name)}, {len(comparison.data.questions):,} questions: mean [95% interval]")
    _columns(table, ["pipeline"], ["failed", *scores])
    for result in comparison.results:
        means = [_interval(result.means[name]) for name in scores]
        table.add_row(plain(result.name), _failed(result.failed, len(result.outcomes)), *means)
    return table


def costs_table(comparison: Comparison, rates: dict[str, float | None]) -> Table:
    """What a question costs each pipeline on average; ``rates`` are questions per second."""
    costs = [name for name in comparison.metrics if is_cost(name)]
    table = _table("cost of a question, on average")
    _columns(table, ["pipeline"], [*costs, "questions/s"])
    for result in comparison.results:
        rate = rates.get(result.name)
        means = [_number(mean.mean) if (mean := result.means[name]) else "–" for name in costs]
        table.add_row(plain(result.name), *means, "–" if rate is None else _number(rate))
    return table


def differences_table(comparison: Comparison) -> Table:
    """One row per test: the difference from the first pipeline, its interval, and p as it is and corrected for all tests here."""
    tests = len(comparison.differences)
    test = f"paired permutation test, Holm's correction for {tests} test{'s'[: tests > 1]}"
    table = _table(f"difference from {plain(comparison.results[0].name)}: {test}")
    _columns(table, ["pipeline", "metric"], ["difference [95% interval]", "questions", "p", "p corrected"])
    for row in comparison.differences:
        style = "bold" if row.corrected < SIGNIFICANT else None
        table.add_row(plain(row.pipeline), row.metric, _change(row), f"{row.n:,}", _p(row.p), _p(row.corrected), style=style)
    return table


def breakdown_table(comparison: Comparison, groups: Sequence[Group], by: str) -> Table:
    """One row per kind of question and pipeline."""
    scores = [name for name in comparison.metrics if not is_cost(name)]
    table = _table(f"by {plain(by)}: mean [95% interval]")
    _columns(table, [plain(by), "pipeline"], ["questions", "failed", *scores])
    for group in groups:
        for result in comparison.results:
            means = [_interval(group.means[result.name][name]) for name in scores]
            failed = _failed(group.failed[result.name], group.questions)
            table.add_row(plain(group.value), plain(result.name), f"{group.questions:,}", failed, *means)
        table.add_section()
    return table


def differing_table(items: Sequence[Differing], first: str, second: str, metric: str) -> Table:
    """The questions on which two pipelines differ, with the reference and both answers."""
    more = f", the first {SHOWN} shown (all of them with --json)" if len(items) > SHOWN else ""
    table = _table(f"{plain(first)} and {plain(second)} differ in {metric} on {len(items):,} question{'s'[: len(items) != 1]}{more}")
    for name in ("question", "reference", first, second):
        table.add_column(plain(name), overflow="fold")
    for item in list(items)[:SHOWN]:
        answers = [*item.question.answers[:1], *(part[0] for part in item.question.parts if part), *item.question.gold[:3]]
        reference = "; ".join(answers) if item.question.answerable else "(none: refuse)"
        cells = [
            f"{'–' if score is None else _number(score)}: {outcome.error or outcome.answer or ', '.join(outcome.retrieved)}"
            for outcome, score in zip((item.first, item.second), item.scores, strict=True)
        ]
        table.add_row(*(_cell(text) for text in (item.question.question, reference, *cells)))
    return table


def failure_lines(comparison: Comparison) -> list[str]:
    """For each pipeline with failures its most frequent errors."""
    lines = []
    for result in comparison.results:
        errors = Counter(outcome.error for outcome in result.outcomes if outcome.error)
        lines += [f"{plain(result.name)}: {count:,} failed: {_cell(error)}" for error, count in errors.most_common(_ERRORS)]
    return lines


def plain(text: str) -> str:
    """One line without control characters: an answer could hold codes that rewrite a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split())).replace("[", "\\[")


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)


def _columns(table: Table, left: Sequence[str], right: Sequence[str]) -> None:
    for name in left:
        table.add_column(name, overflow="fold")
    for name in right:
        table.add_column(name, justify="right")


def _cell(text: str) -> str:
    return plain(text if len(text) <= _CELL else f"{text[: _CELL - 1]}…")


def _interval(mean: Estimate | None) -> str:
    return "–" if mean is None else f"{mean.mean:.3f} \\[{mean.low:.3f}, {mean.high:.3f}]"


def _change(row: Difference) -> str:
    return f"{row.mean:+.3f} \\[{row.low:+.3f}, {row.high:+.3f}]"


def _failed(failed: int, questions: int) -> str:
    return f"[red]{failed:,} ({failed / questions:.1%})[/red]" if failed else "0"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"
