"""The measured tables of what a model wears, from the results of `benchmarks.adapters`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.report import short
from benchmarks.results import Record

PAGES: Mapping[str, tuple[str, ...]] = {
    f"{name}.md": (name,)
    for name in (
        "serial_adapter",
        "parallel_adapter",
        "prefix_tuning",
        "p_tuning",
        "p_tuning_v2",
        "aprompt",
        "fish_mask",
        "cross_attention",
        "bitfit",
        "lora",
        "adalora",
        "dora",
    )
} | {"child_tuning.md": ("child_tuning_f", "child_tuning_d")}
"""The methods of a page, by their names in the benchmark."""
BASES = ("frozen", "full")
_COLUMNS = {"lr": "rate", "trainable_share": "trained", "peak_mb": "peak memory, MB", "s_per_step": "s a step"}


def table(record: Record, methods: Sequence[str]) -> str:
    """What the benchmark found for ``methods`` beside the head alone and all weights."""
    found: dict[str, dict[str, float]] = {}
    for row in record.rows:
        found.setdefault(row.case, {})[row.metric] = row.value
    names = ["method", "accuracy", *_COLUMNS.values()]
    lines = [names, ["---", *["---:"] * (len(names) - 1)]]
    for method in (*BASES, *methods):
        if method in found:
            lines.append([method, _accuracy(found[method]), *(_cell(found[method], metric) for metric in _COLUMNS)])
    made = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"Accuracy [95% interval]; `{record.command}`, {record.date[:10]}.\n\n{made}"


def _accuracy(values: Mapping[str, float]) -> str:
    return f"{values['accuracy']:.3f} [{values['accuracy_min']:.3f}, {values['accuracy_max']:.3f}]"


def _cell(values: Mapping[str, float], metric: str) -> str:
    if metric not in values:
        return "–"
    return f"{values[metric]:.2%}" if metric == "trainable_share" else short(values[metric])
