from __future__ import annotations

from collections.abc import Iterator

import pytest

from rag.core.errors import ConfigError
from rag.evaluate.datasets import data_format, load
from rag.evaluate.datasets.draft import Draft
from rag.evaluate.datasets.formats import Read, _formats, named
from rag.evaluate.datasets.source import Source
from rag.evaluate.types import Question
from tests.rag.evaluate.datasets.conftest import Write


@pytest.fixture
def register() -> Iterator[Read]:
    """Registers a format for the length of a test."""

    def read(source: Source) -> Draft:
        return Draft([Question(r.name("nr"), r.text("frage"), r.texts("antwort")) for r in source.records()])

    before = dict(_formats)
    yield read
    _formats.clear()
    _formats.update(before)


def add(read: Read, name: str) -> None:
    data_format(
        name,
        what="a quiz",
        files="JSON Lines",
        fields="nr, frage, antwort",
        licence="",
        metrics=("exact_match",),
        recognises=lambda source: "frage" in source.first(),
    )(read)


def test_a_format_needs_only_its_decorator(write: Write, register: Read) -> None:
    add(register, "quiz")
    data = load(write("quiz.jsonl", [{"nr": 1, "frage": "Warum?", "antwort": "darum"}]))
    assert (data.questions[0].answers, data.metrics) == (("darum",), ("exact_match",))
    add(register, "quiz")  # the same reader again, as when its module is reloaded
    assert named("quiz").read is register


def test_two_formats_of_one_name_are_refused(register: Read) -> None:
    named("squad")
    with pytest.raises(ConfigError, match=r"two data formats are called 'squad': rag\.evaluate\.datasets\.squad and tests"):
        add(register, "squad")
