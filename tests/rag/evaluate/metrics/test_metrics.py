"""The table of metrics: found by name, checked against the questions, scored together; costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rag.core.errors import InputError
from rag.evaluate.metrics import check_fit, metric, names, score_all
from rag.evaluate.metrics.registry import SHARE, anything, register
from rag.evaluate.types import Outcome, Question

ANSWERED = Question("a", "Where?", ("Paris",), gold=("p1",))
OPEN = Question("b", "Who?", answerable=False)


def test_every_metric_says_what_it_is() -> None:
    for name in names():
        found = metric(name)
        assert found.name == name
        assert found.description.endswith((".", ")")), name
        assert found.needs
        assert found.range[0] == 0 < found.range[1]
    assert {"exact_match", "f1", "recall@5", "ndcg@10", "rgb_rejection", "citation_recall", "prompt_tokens"} <= set(names())
    assert names().index("recall@5") < names().index("recall@10")


def test_what_is_better() -> None:
    lower = {name for name in names() if not metric(name).higher_is_better}
    assert lower == {"calls", "prompt_tokens", "generated_tokens", "retrievals", "first_token", "seconds", "false_refusal"}
    assert metric("seconds").range == (0, float("inf"))
    assert metric("f1").range == (0, 1)


def test_any_cutoff() -> None:
    assert metric("recall@7").name == "recall@7"
    assert metric("recall@2").score(ANSWERED, Outcome("a", retrieved=("x", "y", "p1"))) == 0
    assert metric("recall@3").score(ANSWERED, Outcome("a", retrieved=("x", "y", "p1"))) == 1


@pytest.mark.parametrize("name", ["bleu", "", "recall", "recall@0", "recall@-1", "recall@x", "f1@5", "recall@５", "map@9999999999"])
def test_an_unknown_metric_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match=r"there is no metric .*known are: .*exact_match.*recall@k"):
        metric(name)


def test_score_all() -> None:
    outcomes = [Outcome("a", "Paris", counts={"calls": 2}, retrieved=("p1",)), Outcome("b", "I do not know.", refused=True)]
    assert score_all([ANSWERED, OPEN], outcomes, ["exact_match", "refusal", "calls", "recall@1"]) == {
        "exact_match": [1.0, None],
        "refusal": [None, 1.0],
        "calls": [2.0, 0.0],
        "recall@1": [1.0, None],
    }


def test_the_language_of_the_data_set_holds_for_questions_that_name_none() -> None:
    outcome = Outcome("a", "北京市")
    question = Question("a", "Where?", ("北京",))
    assert score_all([question], [outcome], ["f1"])["f1"] == [0.0]
    assert score_all([question], [outcome], ["f1"], language="zh")["f1"] == [pytest.approx(0.8)]
    named = Question("a", "Where?", ("北京",), metadata={"language": "en"})
    assert score_all([named], [outcome], ["f1"], language="zh")["f1"] == [0.0]


def test_a_metric_that_fits_no_question_names_those_that_fit() -> None:
    with pytest.raises(
        InputError, match=r"'numeric_match' fits none of the 2 questions: it needs a number.*exact_match.*refusal"
    ) as caught:
        score_all([ANSWERED, OPEN], [Outcome("a"), Outcome("b")], ["f1", "numeric_match"])
    fitting = str(caught.value).partition("those that fit are: ")[2].split(", ")
    assert {"recall@5", "exact_match", "refusal", "calls"} <= set(fitting)
    assert not {"numeric_match", "yes_no", "string_em", "rgb_error_detection"} & set(fitting)
    with pytest.raises(InputError, match="'f1' fits none"):
        check_fit([OPEN], ["f1"])
    check_fit([ANSWERED, OPEN], ["f1", "refusal"])


def test_what_is_left_of_a_data_set_after_failures_may_not_fit() -> None:
    assert score_all([], [], ["f1"]) == {"f1": []}
    assert score_all([OPEN], [Outcome("b")], ["f1"], partial=True) == {"f1": [None]}


def test_misplaced_outcomes_are_refused() -> None:
    with pytest.raises(InputError, match="2 questions but 1 outcomes"):
        score_all([ANSWERED, OPEN], [Outcome("a")], ["f1"])
    with pytest.raises(InputError, match="outcome of question 'b' was given for question 'a'"):
        score_all([ANSWERED], [Outcome("b")], ["f1"])
    with pytest.raises(InputError, match="failed"):
        score_all([ANSWERED], [Outcome("a", error="NodeError: x")], ["f1"])


def test_costs() -> None:
    outcome = Outcome("a", counts={"calls": 3, "prompt_tokens": 812, "retrievals": 1}, seconds=1.5, first_token=0.25)
    costs = ["calls", "prompt_tokens", "generated_tokens", "retrievals", "first_token", "seconds"]
    assert [metric(name).score(ANSWERED, outcome) for name in costs] == [3, 812, 0, 1, 0.25, 1.5]
    assert metric("first_token").score(ANSWERED, Outcome("a")) is None


def test_a_second_metric_of_the_same_name_is_refused() -> None:
    names()
    with pytest.raises(InputError, match="two metrics are called 'f1'"):
        register("f1", needs="nothing", fits=anything, range=SHARE)(lambda question, outcome: 0.0)


def test_no_metric_needs_a_heavy_package_to_be_known() -> None:
    heavy = ["torch", "ir_measures", "numba", "faiss", "scipy"]
    code = f"import sys, rag.evaluate.metrics as m; m.names(); print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
