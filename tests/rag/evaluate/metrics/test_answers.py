"""Containment, ROUGE-L, numbers, yes and no, parts: each by cases whose value is plain to see."""

from __future__ import annotations

import random
from functools import cache

import pytest

from rag.core.errors import InputError
from rag.evaluate.metrics import metric
from rag.evaluate.metrics.rouge_l import longest_common_subsequence
from rag.evaluate.metrics.text import is_chinese
from rag.evaluate.types import Outcome, Question


def _score(name: str, answer: str, *references: str, question: str = "Which one?", parts: tuple[tuple[str, ...], ...] = ()) -> float | None:
    return metric(name).score(Question("q", question, references, parts), Outcome("q", answer))


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("It was the Eiffel Tower, in Paris.", ["Eiffel tower"], 1),
        ("In 2012", ["12"], 0),  # whole words
        ("In 2012", ["12", "2012"], 1),
        ("The well known", ["well-known"], 0),
        ("Tower Eiffel", ["Eiffel Tower"], 0),  # in order
        ("", ["Paris"], 0),
        ("the", ["The"], 0),  # nothing is left of the reference
        ("他出生于北京市。", ["北京"], 1),
        ("他出生于 北 京 市。", ["《北京》"], 1),
        ("他出生于上海。", ["北京"], 0),
        ("用 iPhone 15 拍摄", ["iphone15"], 1),
    ],
)
def test_match(answer: str, references: list[str], expected: float) -> None:
    chinese = any("\u4e00" <= c <= "\u9fff" for c in answer)
    assert _score("match", answer, *references, question="是哪一个？" if chinese else "Which one?") == expected


@pytest.mark.parametrize(
    ("answer", "references", "expected"),
    [
        ("the cat sat on the mat", ["the cat sat on the mat"], 1),
        ("police kill the gunman", ["police killed the gunman"], 3 / 4),  # Lin 2004, section 3
        ("the gunman kill police", ["police killed the gunman"], 2 / 4),
        ("cat", ["a cat sat"], 2 * 1 * (1 / 3) / (4 / 3)),
        ("dogs", ["a cat"], 0),
        ("", ["a cat"], 0),
        ("Cat!", ["dog", "the CAT", "cat"], 1),
        ("well-known", ["well known"], 1),
    ],
)
def test_rouge_l(answer: str, references: list[str], expected: float) -> None:
    assert _score("rouge_l", answer, *references) == pytest.approx(expected)


def test_rouge_l_of_chinese_takes_characters_and_need_not_be_contiguous() -> None:
    assert _score("rouge_l", "北方京城。", "北京", question="是哪里？") == pytest.approx(2 * 2 / (4 + 2))


def test_longest_common_subsequence_equals_its_recursive_definition() -> None:
    rng = random.Random(5)
    for _ in range(300):
        first, second = (tuple(rng.choices("abcd", k=rng.randint(0, 9))) for _ in range(2))

        @cache
        def common(i: int, j: int, first: tuple[str, ...] = first, second: tuple[str, ...] = second) -> int:
            if i == 0 or j == 0:
                return 0
            return common(i - 1, j - 1) + 1 if first[i - 1] == second[j - 1] else max(common(i - 1, j), common(i, j - 1))

        assert longest_common_subsequence(first, second) == common(len(first), len(second))


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("3 + 4 = 7. So the answer is 7.", "7", 1),
        ("First 7, then 8", "7", 0),  # the last number counts
        ("#### 1,234", "1234", 1),
        ("$1,200.50", "1200.5", 1),
        ("1,234,567 people", "1234567", 1),
        ("€-5", "-5", 1),
        ("-$5", "-5", 1),
        ("minus: −12", "-12", 1),
        ("5", "-5", 0),
        ("from 3-5", "5", 1),  # a range, no sign
        ("12 - 5", "5", 1),  # a difference, no sign
        ("Answer – 5", "5", 1),
        ("４２", "42", 1),
        ("50%", "50", 1),
        ("50%", "0.5", 1),
        ("0.5", "50%", 1),
        ("50%", "5000%", 0),
        ("0.33333", "0.333333", 1),
        ("0.34", "0.333333", 0),
        ("100001", "100002", 0),  # whole numbers must be equal
        ("18.0", "18", 1),
        ("1.5e3", "1500", 1),
        ("共70个", "70", 1),
        ("CO2", "2", 0),
        ("no idea", "7", 0),
        ("", "7", 0),
        (".5", "0.5", 1),
        ("It is 7.", "He pays #### 7", None),  # the reference is more than a number
        ("It is 7.", "3 of 7", None),
    ],
)
def test_numeric_match(answer: str, reference: str, expected: float | None) -> None:
    assert _score("numeric_match", answer, reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Yes", "yes", 1),
        ("Yes, it does.", "True", 1),
        ("No.", "yes", 0),
        ("Nothing says so", "no", 0),  # no whole word
        ("A cat is no dog, so the answer is yes.", "yes", 1),
        ("Yes? The answer is: no", "no", 1),
        ("Well, it may be yes, but I would say no", "no", 1),
        ("The answer is yes. No, the answer is no.", "no", 1),
        ("One may say yes, or rather no", "yes", 0),
        ("maybe", "no", 0),
        ("", "no", 0),
        ("是的。", "yes", 1),
        ("不是。", "是", 0),
        ("不是。", "否", 1),
        ("因此答案是否。", "否", 1),
        ("这是北京", "是", 0),
        ("Yes", "Paris", None),
    ],
)
def test_yes_no(answer: str, reference: str, expected: float | None) -> None:
    assert _score("yes_no", answer, reference) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("Let us think. It is May. So the answer is (B).", "(B)", 1),
        ("So the answer is (B) 05/01/2021. That is all.", "(B)", 1),
        ("So the answer is **b**.", "(B)", 1),
        ("(A)", "(A)", 1),
        ("(B)", "(A)", 0),
        ("An apple", "(A)", 0),
        ("", "(A)", 0),
        ("The answer is (A). No, the answer is (C).", "(A)", 0),
        ("So the answer is -35.", "-35", 1),
        ("35", "-35", 0),
        ("So the answer is ] ) }.", "] ) }", 1),
        (">", "}", 0),
        ("Answer: Valid", "valid", 1),
        ("invalid", "valid", 0),
        ("the answer is barn  damp\ndelmarva", "barn damp", 1),
    ],
)
def test_final_answer(answer: str, reference: str, expected: float) -> None:
    assert _score("final_answer", answer, reference) == expected


def test_string_em_is_the_share_of_parts_given() -> None:
    parts = (("1990", "in 1990"), ("The U.S.",), ("São Paulo",))
    assert _score("string_em", "In 1990, in the US.", parts=parts) == pytest.approx(2 / 3)
    assert _score("string_em", "", parts=parts) == 0
    assert _score("string_em", "1990", parts=(("The",), ("1990",))) == 1 / 2  # nothing is left of "The"
    assert _score("string_em", "1月3日和1月12日", question="是什么时候？", parts=(("1月3日",), ("1 月 12 日",))) == 1
    assert _score("string_em", "1990", "1990") is None


def test_citation_markers_are_no_part_of_an_answer_from_passages() -> None:
    question = Question("q", "Where?", ("Paris",))
    chinese = Question("q", "在哪里？", ("北京",))
    assert metric("exact_match").score(question, Outcome("q", "Paris [1, 2].", retrieved=("p1", "p2"))) == 1
    assert metric("exact_match").score(chinese, Outcome("q", "北京 [1]。", retrieved=("p1",))) == 1
    assert metric("numeric_match").score(Question("q", "How many?", ("7",)), Outcome("q", "7 [2]", citations=(("p", True),))) == 1
    assert metric("exact_match").score(question, Outcome("q", "Paris [1]")) == 0  # no passages: the brackets are the answer's own


def test_a_declared_refusal_is_no_answer_whatever_its_words() -> None:
    question = Question("q", "What does he say?", ("I do not know.",))
    assert metric("exact_match").score(question, Outcome("q", "I do not know.")) == 1
    assert metric("exact_match").score(question, Outcome("q", "I do not know.", refused=True)) == 0


@pytest.mark.parametrize("name", ["exact_match", "f1", "match", "rouge_l"])
def test_a_question_without_an_answer_is_not_scored(name: str) -> None:
    assert metric(name).score(Question("q", "?", answerable=False), Outcome("q", "Paris")) is None
    assert metric(name).score(Question("q", "?", parts=(("a",),)), Outcome("q", "Paris")) is None


def test_an_error_is_never_scored() -> None:
    with pytest.raises(InputError, match="question 'q' failed \\(ModelError: down\\); remove failed questions"):
        metric("exact_match").score(Question("q", "?", ("a",)), Outcome("q", error="ModelError: down"))


@pytest.mark.parametrize(
    ("question", "references", "language", "expected"),
    [
        ("北京在哪里？", ("中国",), "", True),
        ("iPhone 15 是哪一年发布的？", ("2023",), "", True),
        ("What does 福 mean?", ("fortune",), "", False),
        ("1 + 1 = ?", ("二",), "", True),
        ("1 + 1 = ?", ("2",), "", False),
        ("Where is 北京?", ("中国",), "zh-CN", True),
        ("北京在哪里？", ("China",), "en", False),
    ],
)
def test_language_by_metadata_or_script(question: str, references: tuple[str, ...], language: str, expected: bool) -> None:
    assert is_chinese(Question("q", question, references, metadata={"language": language} if language else {})) is expected
