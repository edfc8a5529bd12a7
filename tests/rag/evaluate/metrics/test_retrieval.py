"""Retrieval metrics equal ir-measures on graded, tied and repeated rankings, and their formulas written out."""

from __future__ import annotations

import math
import random
import sys

import pytest

from rag.core.errors import MissingDependency
from rag.evaluate.metrics import metric
from rag.evaluate.types import Outcome, Question

OURS = {"recall@3": "R@3", "ndcg@3": "nDCG@3", "ndcg@10": "nDCG@10", "mrr": "RR", "mrr@2": "RR@2", "map": "AP", "success@2": "Success@2"}


def _random_questions(count: int) -> list[tuple[Question, Outcome]]:
    rng = random.Random(6)
    passages = [f"p{i}" for i in range(12)]
    found = []
    for n in range(count):
        gold = tuple(rng.sample(passages, rng.randint(1, 4)))
        grades = {passage: rng.randint(0, 3) for passage in rng.sample(passages, 5)} if n % 2 else {}
        grades |= dict.fromkeys(gold, 1) if n % 4 == 3 else {}
        ranking = tuple(rng.sample(passages, rng.randint(0, 12)))
        found.append((Question(f"q{n}", "?", gold=gold, grades=grades), Outcome(f"q{n}", retrieved=ranking)))
    return found


@pytest.mark.parametrize("name", OURS)
def test_equal_to_ir_measures_over_all_questions_at_once(name: str) -> None:
    import ir_measures

    asked = _random_questions(80)
    judged = [ir_measures.Qrel(q.id, p, g) for q, _ in asked for p, g in {**dict.fromkeys(q.gold, 1), **q.grades}.items()]
    scored = [ir_measures.ScoredDoc(o.question, p, -float(rank)) for _, o in asked for rank, p in enumerate(o.retrieved)]
    expected = {m.query_id: m.value for m in ir_measures.iter_calc([ir_measures.parse_measure(OURS[name])], judged, scored)}
    compared = {q.id: metric(name).score(q, o) for q, o in asked}
    assert {key: value for key, value in compared.items() if value is not None} == pytest.approx(
        {key: value for key, value in expected.items() if compared[key] is not None}
    )
    assert len({round(value, 6) for value in compared.values() if value is not None}) > 2 or name == "success@2"


@pytest.mark.parametrize("order", [("a", "b", "x"), ("b", "a", "x"), ("x", "b", "a")])
def test_ties_are_as_the_retriever_ranked_them(order: tuple[str, ...]) -> None:
    """ir-measures itself breaks ties by the id; here the place decides, whatever the ids are."""
    question, outcome = Question("q", "?", gold=("a",), grades={"a": 2, "b": 1}), Outcome("q", retrieved=order)
    gains = {"a": 2, "b": 1, "x": 0}
    dcg = sum(gains[p] / math.log2(rank + 1) for rank, p in enumerate(order, start=1))
    assert metric("ndcg@10").score(question, outcome) == pytest.approx(dcg / (2 + 1 / math.log2(3)))
    assert metric("mrr").score(question, outcome) == pytest.approx(1 / min(order.index("a") + 1, order.index("b") + 1))


def test_values_by_hand() -> None:
    question = Question("q", "?", gold=("a", "b"))
    outcome = Outcome("q", retrieved=("x", "a", "x", "a", "y", "b"))  # a method that retrieved three times: x a y b
    expected = {
        "recall@1": 0.0,
        "recall@2": 0.5,
        "recall@3": 0.5,
        "recall@4": 1.0,
        "success@1": 0.0,
        "success@2": 1.0,
        "all_gold@3": 0.0,
        "all_gold@4": 1.0,
        "mrr": 0.5,
        "mrr@1": 0.0,
        "map": (1 / 2 + 2 / 4) / 2,
        "ndcg@10": (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3)),
    }
    assert {name: metric(name).score(question, outcome) for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("name", [*OURS, "all_gold@5"])
def test_nothing_retrieved_is_zero_and_no_gold_does_not_apply(name: str) -> None:
    assert metric(name).score(Question("q", "?", gold=("a",)), Outcome("q")) == 0
    assert metric(name).score(Question("q", "?"), Outcome("q", retrieved=("a",))) is None
    assert metric(name).score(Question("q", "?", grades={"a": 0}), Outcome("q", retrieved=("a",))) is None


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ir_measures", None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[eval\]"):
        metric("recall@5").score(Question("q", "?", gold=("a",)), Outcome("q", retrieved=("a",)))
