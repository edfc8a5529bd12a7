"""The measured tables of stored contexts, from the results of `context_store`, `context_healing`, `knn_lm` and `decoupled`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.report import short
from benchmarks.results import Record

STORE_PAGES: Mapping[str, tuple[str, ...]] = {"context-store.md": ("local/", "vllm/", "xquad/", "musique/")}
HEALING_PAGES: Mapping[str, tuple[str, ...]] = {"link_tokens.md": ("answers/",)}
KNN_PAGES: Mapping[str, tuple[str, ...]] = {"knn-lm.md": ("wikitext2",)}
DECOUPLED_PAGES: Mapping[str, tuple[str, ...]] = {"decoupled.md": ("own", "others", "none")}
"""The cases of each page: how their names begin."""

_PEER = "its peer's "
_TIMES = {
    "context_tokens": "tokens of context",
    f"{_PEER}ttft_s": "read in full, s",
    "ttft_s": "from RAM, s",
    "ttft_disk_s": "from disk, s",
    "ttft_recomputed_s": "15% computed again, s",
    "ttft_ratio": "full / RAM",
}
_ANSWERS = {"questions": "questions", "f1": "F1", "f1_change": "F1 beside full", "same_text": "same text, %"}
_HEALED = {
    "questions": "questions",
    "em": "EM",
    "f1": "F1",
    "f1_gain": "gain beside the bare model",
    "f1_to_full": "beside full reading",
    "f1_by_links": "beside the LoRA alone",
}
_NEIGHBOURS = {"ppl_base": "model alone", "ppl": "with the datastore", "reduction": "less, %", "lambda": "λ", "k": "k", "tokens": "tokens"}
_MEMORY = {"ppl": "perplexity", "reduction_others": "less than with others', %", "reduction_none": "less than with none, %"}


def store_table(record: Record, cases: Sequence[str]) -> str:
    """Time to the first token, and answers."""
    timed = [case for case in cases if case.endswith(("local/", "vllm/"))]
    asked = [case for case in cases if case not in timed]
    return (
        f"Time to the first token, median [least – most]; F1 in percent [95% interval]; {_origin(record)}\n\n"
        f"{_grid(record, timed, 'where', _TIMES)}\n\n{_grid(record, asked, 'questions / way', _ANSWERS)}"
    )


def healing_table(record: Record, cases: Sequence[str]) -> str:
    """Answers of the bare model and with each adapter."""
    return (
        f"In percent, and points of F1 over the same questions [95% interval]; {_origin(record)}\n\n{_grid(record, cases, 'case', _HEALED)}"
    )


def knn_table(record: Record, cases: Sequence[str]) -> str:
    """Perplexity with and without the datastore."""
    return f"Perplexity a token [95% interval]; {_origin(record)}\n\n{_grid(record, cases, 'text', _NEIGHBOURS)}"


def decoupled_table(record: Record, cases: Sequence[str]) -> str:
    """Perplexity with contexts of one's own, of others and none."""
    return f"Perplexity a token [95% interval]; {_origin(record)}\n\n{_grid(record, cases, 'contexts', _MEMORY)}"


def _origin(record: Record) -> str:
    return f"`{record.command}`, {record.date[:10]}."


def _grid(record: Record, cases: Sequence[str], first: str, columns: Mapping[str, str]) -> str:
    """A line for each case that begins as one of ``cases``, in the order of the record; columns that none has are left out."""
    found: dict[str, dict[str, float]] = {}
    for row in record.rows:
        if row.case.startswith(tuple(cases)):
            values = found.setdefault(row.case, {})
            values[row.metric] = row.value
            if row.peer_value is not None:
                values[f"{_PEER}{row.metric}"] = row.peer_value
    shown = [metric for metric in columns if any(metric in values for values in found.values())]
    lines = [[first, *(columns[metric] for metric in shown)], ["---", *["---:"] * len(shown)]]
    lines += [[_named(case, cases), *(_cell(values, metric) for metric in shown)] for case, values in found.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _named(case: str, cases: Sequence[str]) -> str:
    """Without what all lines begin with."""
    return case.removeprefix(cases[0]) if len(cases) == 1 and cases[0].endswith("/") else case


def _cell(values: Mapping[str, float], metric: str) -> str:
    if metric not in values:
        return "–"
    ends = [values[f"{metric}_{end}"] for end in ("min", "max") if f"{metric}_{end}" in values]
    return short(values[metric]) + (f" [{short(ends[0])} – {short(ends[1])}]" if len(ends) == 2 else "")
