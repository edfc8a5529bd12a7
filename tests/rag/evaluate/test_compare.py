from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rag.core.errors import InputError
from rag.evaluate.account import account
from rag.evaluate.breakdown import breakdown, differing
from rag.evaluate.compare import compare
from rag.evaluate.machine import machine
from rag.evaluate.table import breakdown_table, costs_table, differences_table, differing_table, failure_lines, scores_table
from rag.evaluate.types import DataSet, Outcome
from tests.rag.evaluate.parts import answered, failed, numbers


def outcomes(data: DataSet, right: int, failing: tuple[int, ...] = ()) -> list[Outcome]:
    """The first ``right`` questions answered rightly, the rest wrongly; those at ``failing`` failed."""
    texts = [answered(q, q.answers[0] if index < right else "wrong") for index, q in enumerate(data.questions)]
    return [failed(q) if index in failing else texts[index] for index, q in enumerate(data.questions)]


def text(table: object) -> str:
    from io import StringIO

    from rich.console import Console

    console = Console(file=StringIO(), width=200)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_a_known_difference_and_its_p_value() -> None:
    data = numbers(20)
    comparison = compare(data, {"none": outcomes(data, 0), "half": outcomes(data, 10)}, ["exact_match"])
    (difference,) = comparison.differences
    assert (difference.base, difference.pipeline, difference.metric, difference.mean, difference.n) == (
        "none",
        "half",
        "exact_match",
        0.5,
        20,
    )
    assert difference.p == difference.corrected == pytest.approx(2 / 2**10)  # ten pairs differ, all in one direction
    assert 0.25 <= difference.low < 0.5 < difference.high <= 0.75
    (none, half) = (result.means["exact_match"] for result in comparison.results)
    assert none is not None
    assert half is not None
    assert (none.mean, none.low, none.high) == (0, 0, 0)
    assert [half.mean, half.low, half.high] == pytest.approx([0.5, difference.low, difference.high])


def test_holm_corrects_for_every_test_of_the_table_and_costs_are_not_tested() -> None:
    data = numbers(20)
    runs = {"none": outcomes(data, 0), "ten": outcomes(data, 10), "nine": outcomes(data, 9)}
    comparison = compare(data, runs, ["exact_match", "f1", "calls"])
    assert [(d.metric, d.pipeline) for d in comparison.differences] == [
        ("exact_match", "ten"),
        ("exact_match", "nine"),
        ("f1", "ten"),
        ("f1", "nine"),
    ]
    assert [d.corrected for d in comparison.differences] == pytest.approx([4 * 2 / 2**10, 2 * 2 / 2**9] * 2)


def test_failures_are_in_no_mean_and_in_no_pair() -> None:
    data = numbers(20)
    runs = {"a": outcomes(data, 10, failing=(0, 1)), "b": outcomes(data, 20, failing=(2,))}
    comparison = compare(data, runs, ["exact_match"])
    a, b = comparison.results
    assert (a.failed, b.failed) == (2, 1)
    assert a.means["exact_match"] is not None
    assert (a.means["exact_match"].mean, a.means["exact_match"].n) == (8 / 18, 18)
    assert (comparison.differences[0].n, comparison.differences[0].mean) == (17, 10 / 17)

    broken = compare(data, {"a": outcomes(data, 10), "b": outcomes(data, 0, failing=tuple(range(20)))}, ["exact_match"])
    assert (broken.results[1].failed, broken.results[1].means["exact_match"], broken.differences) == (20, None, ())


def test_the_order_of_pipelines_and_the_seed_do_not_change_the_means() -> None:
    data = numbers(40)
    runs = {"a": outcomes(data, 10), "b": outcomes(data, 25)}
    one = compare(data, runs, ["exact_match"])
    other = compare(data, dict(reversed(runs.items())), ["exact_match"])
    assert one.result("a").means == other.result("a").means
    assert one.differences[0].mean == -other.differences[0].mean
    assert one.differences[0].p == other.differences[0].p
    again = compare(data, runs, ["exact_match"], seed=1)
    assert again.results[0].means["exact_match"] != one.results[0].means["exact_match"]
    assert again.differences[0].mean == one.differences[0].mean


def test_what_does_not_fit_is_refused() -> None:
    data = numbers(3)
    with pytest.raises(InputError, match="'recall@5' fits none of the 3 questions"):
        compare(data, {"a": outcomes(data, 1)}, ["recall@5"])
    with pytest.raises(InputError, match="no metric 'bleu'"):
        compare(data, {"a": outcomes(data, 1)}, ["bleu"])
    with pytest.raises(InputError, match="outcomes of 'a' are not those of the questions of numbers"):
        compare(data, {"a": outcomes(data, 1)[::-1]}, ["exact_match"])
    with pytest.raises(InputError, match="no pipeline to compare"):
        compare(data, {}, ["exact_match"])


def test_each_kind_of_question_has_its_means() -> None:
    data = numbers(20)
    comparison = compare(data, {"a": outcomes(data, 5, failing=(0,)), "b": outcomes(data, 20)}, ["exact_match"])
    even, odd = breakdown(comparison, "type")
    assert [(g.value, g.questions, g.failed["a"]) for g in (even, odd)] == [("even", 10, 0), ("odd", 10, 1)]
    assert odd.means["a"]["exact_match"] is not None
    assert (odd.means["a"]["exact_match"].mean, odd.means["a"]["exact_match"].n) == (2 / 9, 9)
    assert [g.value for g in breakdown(comparison, "answerable")] == ["answerable"]
    quartiles = breakdown(comparison, "size")
    assert [(g.value, g.questions) for g in quartiles] == [("1 to 36", 5), ("36 to 121", 5), ("121 to 256", 5), ("256 to 400", 5)]
    with pytest.raises(InputError, match="no question has 'colour'; the questions can be told apart by: answerable, type, size"):
        breakdown(comparison, "colour")


def test_groups_are_ordered_as_numbers_and_questions_without_a_value_come_last() -> None:
    data = numbers(4)
    values = [10, 9, None, 10]
    questions = [replace(q, metadata={} if v is None else {"hops": v}) for q, v in zip(data.questions, values, strict=True)]
    comparison = compare(replace(data, questions=questions), {"a": outcomes(data, 5)}, ["exact_match"])
    assert [(g.value, g.questions) for g in breakdown(comparison, "hops")] == [("9", 1), ("10", 2), ("none", 1)]


def test_the_questions_on_which_two_differ() -> None:
    data = numbers(6)
    comparison = compare(data, {"a": outcomes(data, 3), "b": outcomes(data, 5, failing=(0,))}, ["exact_match"])
    assert [(item.question.id, item.scores) for item in differing(comparison, "a", "b")] == [
        ("q1", (1.0, None)),
        ("q4", (0.0, 1.0)),
        ("q5", (0.0, 1.0)),
    ]
    with pytest.raises(InputError, match="no pipeline 'c' here; there are: a, b"):
        differing(comparison, "a", "c")
    with pytest.raises(InputError, match="'f1' was not measured"):
        differing(comparison, "a", "b", "f1")


def test_tables_show_failures_intervals_and_p_values_and_no_control_characters() -> None:
    data = numbers(20)
    data = replace(data, questions=[replace(data.questions[0], question="is [red]this\x1b[31m 1?"), *data.questions[1:]])
    runs = {"a[b]": outcomes(data, 0, failing=(2, 3)), "b": outcomes(data, 20)}
    comparison = compare(data, runs, ["exact_match", "calls"])
    scores = text(scores_table(comparison))
    assert "2 (10.0%)" in scores
    assert "0.000 [0.000, 0.000]" in scores
    assert "a[b]" in scores
    assert "calls" not in scores
    assert "+1.000 [+1.000, +1.000]" in text(differences_table(comparison))
    assert "<0.001" in text(differences_table(comparison))
    assert "1,234" in text(costs_table(comparison, {"b": 1234.0}))
    assert text(breakdown_table(comparison, breakdown(comparison, "type"), "type")).count("even") == 2
    shown = text(differing_table(differing(comparison, "a[b]", "b"), "a[b]", "b", "exact_match"))
    assert "is [red]this�[31m 1?" in shown
    assert "ModelUnavailable: down" in shown
    assert failure_lines(comparison) == ["a\\[b]: 2 failed: ModelUnavailable: down"]


def test_the_account_holds_what_is_needed_to_measure_again() -> None:
    import json

    data = numbers(4)
    comparison = compare(data, {"a": outcomes(data, 2, failing=(3,)), "b": outcomes(data, 4)}, ["exact_match"], seed=5)
    groups = {"type": breakdown(comparison, "type")}
    items = differing(comparison, "a", "b")
    found = json.loads(
        json.dumps(
            account(
                comparison, configurations={"a": {"pipeline": "x"}}, rates={"a": 2.0}, settings={"limit": 4}, groups=groups, differing=items
            )
        )
    )
    assert found["settings"] == {"limit": 4, "seed": 5}
    assert found["machine"] == machine()
    assert found["versions"]["numpy"] == np.__version__
    assert found["date"].endswith("Z")
    assert found["data"]["fingerprint"] == data.fingerprint
    first = found["pipelines"][0]
    assert (first["configuration"], first["questions_per_second"], first["failed"]) == ({"pipeline": "x"}, 2.0, 1)
    assert first["failures"] == [{"question": "q4", "error": "ModelUnavailable: down"}]
    assert first["means"]["exact_match"]["mean"] == 2 / 3
    assert found["differences"][0]["pipeline"] == "b"
    assert [group["value"] for group in found["breakdown"]["type"]] == ["even", "odd"]
    assert [item["question"] for item in found["differing"]] == ["q4", "q3"]
