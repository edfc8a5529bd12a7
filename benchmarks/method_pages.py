"""The measured tables of docs/methods, made from the results of `benchmarks.generators` alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.files import write_whole
from benchmarks.report import short
from benchmarks.results import Record
from rag.core.errors import InputError

RESULTS = "generators"
"""Name of the record that holds the figures."""
PAGES: Mapping[str, tuple[str, ...]] = {
    "adaptive_rag.md": ("adaptive",),
    "crag.md": ("crag",),
    "flare.md": ("flare", "flare_instruct"),
    "hyde.md": ("hyde",),
    "ircot.md": ("ircot",),
    "iter_retgen.md": ("iter_retgen",),
    "self_ask.md": ("self_ask",),
    "self_rag.md": ("self_rag",),
}
"""The methods of a page, by their names in the benchmark."""
BASES = ("direct", "cited")
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"
_MEANS = ("em", "f1", "all_gold@10")
_COSTS = {"retrievals": "retrievals", "calls": "model calls", "prompt_tokens": "prompt tokens", "generated_tokens": "tokens written"}


def write_tables(folder: Path, record: Record | None) -> None:
    """Write the tables into the pages below ``folder``; nothing without a record. Raises `InputError` for a page without its markers."""
    if record is None:
        return
    for name, methods in PAGES.items():
        file = folder / name
        write_whole(file, with_table(file.read_text("utf-8"), table(record, methods), name))


def with_table(page: str, made: str, name: str) -> str:
    """``page`` with ``made`` between its markers. Raises `InputError` if they are not there, once and in order."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in before:
        raise InputError(f"{name}: the measured table stands between {BEGIN} and {END}, which the page must hold once")
    return f"{before}{BEGIN}\n{made}\n{END}{after}"


def table(record: Record, methods: Sequence[str]) -> str:
    """What the benchmark found for ``methods`` beside the model alone and one retrieval."""
    found: dict[str, dict[str, float]] = {}
    for row in record.rows:
        found.setdefault(row.case, {})[row.metric] = row.value
    sets = list(dict.fromkeys(case.split("/")[0] for case in found if not case.startswith("in_flight/")))
    names = ["data set", "method", "EM", "F1", "all gold in 10", *_COSTS.values()]
    lines = [names, ["---", "---", *["---:"] * (len(names) - 2)]]
    for data in sets:
        for method in (*BASES, *methods):
            values = found.get(f"{data}/{method}")
            if values is not None:
                lines.append([data, method, *(_mean(values, metric) for metric in _MEANS), *(_cost(values, metric) for metric in _COSTS)])
    made = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"Mean [95% interval], costs per question; `{record.command}`, {record.date[:10]}.\n\n{made}"


def _mean(values: Mapping[str, float], metric: str) -> str:
    if metric not in values:
        return "–"
    return f"{values[metric]:.3f} [{values[f'{metric}_min']:.3f}, {values[f'{metric}_max']:.3f}]"


def _cost(values: Mapping[str, float], metric: str) -> str:
    return short(values[metric]) if metric in values else "–"
