"""Metrics, one file each. Every file registers its own with the decorators of `rag.evaluate.metrics.registry`."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from rag.core.errors import InputError
from rag.evaluate.metrics.registry import Metric, find, registered
from rag.evaluate.types import Outcome, Question

__all__ = ["Metric", "check_fit", "metric", "names", "score_all"]


def names() -> list[str]:
    """The names of all metrics, sorted; of those with a cutoff ("recall@k") the usual ones, though `metric` takes any k."""
    _load()
    return list(registered())


def metric(name: str) -> Metric:
    """The metric called ``name``. Raises `InputError` that lists the known ones."""
    _load()
    return find(name)


def score_all(
    questions: Sequence[Question], outcomes: Sequence[Outcome], names: Sequence[str], *, language: str = "", partial: bool = False
) -> dict[str, list[float | None]]:
    """For each metric its value per question, in the order of ``questions``; None where it does not apply.

    ``outcomes[i]`` belongs to ``questions[i]`` and is no failure. ``language`` is the data set's ("en", "zh"): it holds for questions whose
    metadata names none; without it the script of the question and its references decides how text is normalised.
    ``partial`` says that ``questions`` are only some of the data set's (the others failed), so that a metric may fit none of them.

    Raises `InputError` for an unknown metric, failed or misplaced outcomes, and a metric that fits none of the questions (see `check_fit`).
    """
    if len(questions) != len(outcomes):
        raise InputError(f"{len(questions)} questions but {len(outcomes)} outcomes; give one outcome for each question")
    if not partial:
        check_fit(questions, names)
    asked = [_in_language(question, language) for question in questions]
    chosen = [metric(name) for name in names]
    return {one.name: [one.score(q, o) for q, o in zip(asked, outcomes, strict=True)] for one in chosen}


def check_fit(questions: Sequence[Question], names: Sequence[str]) -> None:
    """Raise `InputError` for a metric that fits none of ``questions``, naming those that would fit. Without questions all is well."""
    chosen = [metric(name) for name in names]
    for one in chosen:
        if questions and not any(one.fits(question) for question in questions):
            fitting = [name for name, other in registered().items() if any(other.fits(question) for question in questions)]
            raise InputError(
                f"the metric '{one.name}' fits none of the {len(questions)} questions: it needs {one.needs}; those that fit are: "
                f"{', '.join(fitting)}"
            )


def _in_language(question: Question, language: str) -> Question:
    if not language or question.metadata.get("language"):
        return question
    return dataclasses.replace(question, metadata={**question.metadata, "language": language})


@cache
def _load() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
