"""The measured tables of how a model writes, from the results of `benchmarks.generators`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.report import short
from benchmarks.results import Record

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
_MEANS = ("em", "f1", "all_gold@10")
_COSTS = {"retrievals": "retrievals", "calls": "model calls", "prompt_tokens": "prompt tokens", "generated_tokens": "tokens written"}


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
