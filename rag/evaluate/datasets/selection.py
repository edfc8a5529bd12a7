"""The first n questions, or n drawn at random."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from rag.core.errors import InputError
from rag.evaluate.types import Question


def select(questions: Sequence[Question], *, limit: int | None, sample: int | None, seed: int, where: str) -> list[Question]:
    """``limit``: the first so many (all, if there are fewer). ``sample``: so many at random, in the file's order.

    A question's lot is the SHA-256 of seed and id, and the lowest are drawn: so a sample is the same on every platform and Python, does
    not depend on the order of the file, and a larger sample with the same seed holds the smaller one. Raises `InputError` for numbers below
    1, a sample larger than the set, and both at once.
    """
    check_selection(limit, sample, seed)
    if limit is not None:
        return list(questions[:limit])
    if sample is None:
        return list(questions)
    if sample > len(questions):
        raise InputError(
            f"{where}: cannot draw a sample of {sample:,} from {len(questions):,} questions; ask for fewer, or leave it out for all"
        )
    lots = sorted(range(len(questions)), key=lambda i: hashlib.sha256(f"{seed}:{questions[i].id}".encode()).digest())
    return [questions[i] for i in sorted(lots[:sample])]


def check_selection(limit: int | None, sample: int | None, seed: int) -> None:
    """Raise `InputError` for what no data set could satisfy, before anything is read."""
    for name, value in (("limit", limit), ("sample", sample)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a whole number of questions, 1 or more, not {value!r}")
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise InputError(f"seed must be a whole number, not {seed!r}")
    if limit is not None and sample is not None:
        raise InputError("give limit (the first n) or sample (n at random), not both")
