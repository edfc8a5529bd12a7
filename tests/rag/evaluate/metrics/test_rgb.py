"""RGB's protocol: all parts, rejection, error detection and correction."""

from __future__ import annotations

import pytest

from rag.evaluate.metrics import metric
from rag.evaluate.types import Outcome, Question

FACT = Question("q", "Super Bowl 2021 location", ("Tampa, Florida",), kind="fact", metadata={"fakeanswer": "Glendale, Arizona"})
PARTS = Question("q", "香港立法会宣誓仪式及首次会议的时间", parts=(("1月3日",), ("1月12日", "一月十二日")), kind="int")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("宣誓于 1 月 3 日，会议于一月十二日", 1),
        ("宣誓于1月3日", 0),
        ("信息不足，但也许是1月3日和1月12日", 0),
        ("", 0),
    ],
)
def test_accuracy_asks_for_all_parts(answer: str, expected: float) -> None:
    assert metric("rgb_accuracy").score(PARTS, Outcome("q", answer)) == expected


def test_accuracy_is_containment_in_any_case() -> None:
    assert metric("rgb_accuracy").score(FACT, Outcome("q", "It was in TAMPA, FLORIDA.")) == 1
    assert metric("rgb_accuracy").score(FACT, Outcome("q", "It was in Tampa.")) == 0


@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        (Outcome("q", "I can not answer the question because of the insufficient information in documents."), 1),
        (Outcome("q", "It was in Tampa."), 0),
        (Outcome("q", "I do not know."), 0),  # not RGB's phrase
        (Outcome("q", "I do not know.", refused=True), 1),
    ],
)
def test_rejection_on_unanswerable_questions(outcome: Outcome, expected: float) -> None:
    assert metric("rgb_rejection").score(Question("q", "Where?", answerable=False), outcome) == expected
    assert metric("rgb_rejection").score(FACT, outcome) is None


@pytest.mark.parametrize(
    ("answer", "detected", "corrected"),
    [
        ("There are factual errors in the provided documents. It was Tampa, Florida.", 1, 1),
        ("There are factual errors in the provided documents. It was Glendale, Arizona.", 1, 0),
        ("There are factual errors; insufficient information.", 1, 0),
        ("It was Tampa, Florida.", 0, None),
    ],
)
def test_error_detection_and_correction(answer: str, detected: float, corrected: float | None) -> None:
    assert metric("rgb_error_detection").score(FACT, Outcome("q", answer)) == detected
    assert metric("rgb_error_correction").score(FACT, Outcome("q", answer)) == corrected


def test_a_chinese_phrase_is_found_between_spaces() -> None:
    question = Question("q", "有多少个议席？", ("70",), kind="fact", metadata={"fakeanswer": "170"})
    assert metric("rgb_error_detection").score(question, Outcome("q", "提供的文档存在 事实性 错误。有 70 个")) == 1


def test_errors_are_only_sought_where_they_were_planted() -> None:
    assert metric("rgb_error_detection").score(PARTS, Outcome("q", "factual errors")) is None
