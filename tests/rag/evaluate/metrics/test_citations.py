"""Citation precision and recall, refusals: counted over markers and sentences of the answer as it was written."""

from __future__ import annotations

import pytest

from generators.citations import check
from rag.core.types import Hit, Passage
from rag.evaluate.metrics import metric
from rag.evaluate.types import Outcome, Question

QUESTION = Question("q", "Where?", ("Paris",))
UNANSWERABLE = Question("q", "Where?", answerable=False)


def _precision_and_recall(answer: str, *valid: bool, refused: bool = False) -> tuple[float | None, float | None]:
    outcome = Outcome("q", answer, refused, tuple(("p", flag) for flag in valid))
    return metric("citation_precision").score(QUESTION, outcome), metric("citation_recall").score(QUESTION, outcome)


@pytest.mark.parametrize(
    ("answer", "valid", "precision", "recall"),
    [
        ("It is Paris [1]. It is big [2].", [True, True], 1, 1),
        ("It is Paris [1]. It is big [2].", [True, False], 1 / 2, 1 / 2),
        ("It is Paris [1]. It is big.", [True], 1, 1 / 2),
        ("It is Paris [1][2]. It is big.", [False, True], 1 / 2, 1 / 2),
        ("It is Paris [1, 2].", [False, True], 1 / 2, 1),
        ("It is Paris. [1] It is big. [2]", [True, False], 1 / 2, 1 / 2),
        ("It is Paris. [1] [2] It is big.", [True, True], 1, 1 / 2),
        ("It is Paris [9]. It is big [1].", [True], 1 / 2, 1 / 2),  # [9] points to no passage
        ("It is Paris [0]. It is big [1].", [True], 1 / 2, 1 / 2),
        ("It is Paris [9]. It is big [8].", [], 0, 0),
        ("[1] It is Paris. [2] It is big.", [True, True], 1, 1 / 2),
        ("It is Paris.\n[1] It is big.", [True], 1, 1 / 2),
        ("It is Paris [1].\n[2] It is big.", [True, True], 1, 1),
        ("It is Paris [1], which is big [2]. It is old [9].", [True, True], 2 / 3, 1 / 2),
        ("它是巴黎[1]。它很大。[2]", [True, True], 1, 1),
        ("It is Paris.", [], None, 0),
        ("[1]", [True], 1, None),
        ("", [], None, None),
    ],
)
def test_by_hand(answer: str, valid: list[bool], precision: float | None, recall: float | None) -> None:
    assert _precision_and_recall(answer, *valid) == (precision, recall)


def test_a_refusal_claims_nothing() -> None:
    assert _precision_and_recall("I do not know.", refused=True) == (None, None)
    assert _precision_and_recall("I do not know.") == (None, None)


def test_citations_as_the_pipeline_gives_them() -> None:
    sources = [Hit(Passage("p1", "The suit holds for six hours."), 1.0, 1), Hit(Passage("p2", "The mess opens at seven."), 0.5, 2)]
    answer = "The suit holds for six hours [1]. The suit holds for nine hours [2][7]. The mess opens at seven [2]."
    citations, _ = check(answer, sources, 0.5)
    outcome = Outcome("q", answer, citations=tuple((c.passage.id, c.valid) for c in citations), retrieved=("p1", "p2"))
    assert [valid for _, valid in outcome.citations] == [True, False, True]
    assert metric("citation_precision").score(QUESTION, outcome) == 2 / 4
    assert metric("citation_recall").score(QUESTION, outcome) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("outcome", "refused"),
    [
        (Outcome("q", "whatever", refused=True), 1),
        (Outcome("q", "I don’t know who that is."), 1),
        (Outcome("q", "“I do not know.”"), 1),
        (Outcome("q", "我不知道。"), 1),
        (Outcome("q", "  "), 1),
        (Outcome("q", "[1]", citations=(("p", True),)), 1),
        (Outcome("q", "Paris"), 0),
        (Outcome("q", "Nobody said: I do not know."), 0),
    ],
)
def test_refusals(outcome: Outcome, refused: float) -> None:
    assert metric("refusal").score(UNANSWERABLE, outcome) == refused
    assert metric("refusal").score(QUESTION, outcome) is None
    assert metric("false_refusal").score(QUESTION, outcome) == refused
    assert metric("false_refusal").score(UNANSWERABLE, outcome) is None
    assert metric("squad2_exact_match").score(UNANSWERABLE, outcome) == refused
