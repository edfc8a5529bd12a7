"""What a metric is, and how its file makes it known: with a decorator, so that no central list has to be kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from rag.core.errors import InputError
from rag.evaluate.types import Outcome, Question

Score = Callable[[Question, Outcome], float | None]
ScoreAt = Callable[[Question, Outcome, int], float | None]
Fits = Callable[[Question], bool]

SHARE = (0.0, 1.0)
AMOUNT = (0.0, float("inf"))


@dataclass(frozen=True, slots=True)
class Metric:
    """A number for one question.

    ``needs`` says in words what a question must have, ``fits`` checks it. ``range`` holds the lowest and the highest possible value.
    """

    name: str
    needs: str
    higher_is_better: bool
    range: tuple[float, float]
    description: str
    fits: Fits
    compute: Score

    def score(self, question: Question, outcome: Outcome) -> float | None:
        """The value, or None where the metric does not apply to this question or this answer.

        Raises `InputError` for an outcome that is an error (a failure is counted apart, never scored) or belongs to another question.
        """
        if outcome.question != question.id:
            raise InputError(f"{self.name}: the outcome of question '{outcome.question}' was given for question '{question.id}'")
        if outcome.error:
            raise InputError(f"{self.name}: question '{question.id}' failed ({outcome.error}); remove failed questions before scoring")
        return self.compute(question, outcome) if self.fits(question) else None


def anything(question: Question) -> bool:
    """Fits every question."""
    return True


def has_answers(question: Question) -> bool:
    """Whether a reference answer is known."""
    return question.answerable and bool(question.answers)


def unanswerable(question: Question) -> bool:
    """Whether refusing is right."""
    return not question.answerable


_metrics: dict[str, Metric] = {}
_families: dict[str, Callable[[int], Metric]] = {}


def register(
    name: str, *, needs: str, fits: Fits, higher_is_better: bool = True, range: tuple[float, float] = SHARE
) -> Callable[[Score], Score]:
    """Make the decorated function known as the metric ``name``; the first line of its docstring describes it."""

    def decorate(compute: Score) -> Score:
        _refuse_second(name)
        _metrics[name] = Metric(name, needs, higher_is_better, range, _first_line(compute), fits, compute)
        return compute

    return decorate


def register_cutoffs(name: str, *, needs: str, fits: Fits, shown: tuple[int, ...] = (1, 5, 10)) -> Callable[[ScoreAt], ScoreAt]:
    """Make the decorated function known as ``name@k`` for every k ≥ 1; `names` shows the values ``shown``."""

    def decorate(compute: ScoreAt) -> ScoreAt:
        def at(k: int) -> Metric:
            return Metric(f"{name}@{k}", needs, True, SHARE, _first_line(compute), fits, lambda q, o: compute(q, o, k))

        _refuse_second(f"{name}@k")
        _families[name] = at
        for k in shown:
            _refuse_second(f"{name}@{k}")
            _metrics[f"{name}@{k}"] = at(k)
        return compute

    return decorate


def registered() -> dict[str, Metric]:
    """The metrics registered so far by name, sorted, each family with the cutoffs that it shows."""
    return dict(sorted(_metrics.items(), key=lambda item: _sort_key(item[0])))


def find(name: str) -> Metric:
    """The metric called ``name``; raises `InputError` that lists the known ones."""
    if name in _metrics:
        return _metrics[name]
    family, _, digits = name.partition("@")
    if family in _families and digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 1_000_000:
        return _families[family](int(digits))
    cutoffs = ", ".join(f"{known}@k" for known in sorted(_families))
    raise InputError(f"there is no metric '{name}'; known are: {', '.join(registered())}, and for any whole number k from 1: {cutoffs}")


def _refuse_second(name: str) -> None:
    if name in _metrics:
        raise InputError(f"two metrics are called '{name}'; rename one of them")


def _first_line(function: Callable[..., object]) -> str:
    return (function.__doc__ or "").strip().partition("\n")[0]


def _sort_key(name: str) -> tuple[str, int]:
    family, _, digits = name.partition("@")
    return family, int(digits or 0)
