"""How well the passages were ranked, by `ir-measures` (MacAvaney et al., ECIR 2022) question by question.

A passage's place in ``Outcome.retrieved`` is its rank, so ties of the retriever's scores are as the retriever broke them. An id that comes
again (a method that retrieves several times) counts at its first place. Gains of nDCG are the grades themselves, as in trec_eval.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import Any

from rag.core.errors import MissingDependency
from rag.evaluate.metrics.registry import SHARE, register, register_cutoffs
from rag.evaluate.types import Outcome, Question

_NEEDS = "gold passages"


def _has_gold(question: Question) -> bool:
    return bool(_relevant(question))


@register_cutoffs("recall", needs=_NEEDS, fits=_has_gold)
def recall(question: Question, outcome: Outcome, k: int) -> float | None:
    """The share of the gold passages among the first k."""
    return _measured(f"R@{k}", question, outcome)


@register_cutoffs("ndcg", needs=_NEEDS, fits=_has_gold)
def ndcg(question: Question, outcome: Outcome, k: int) -> float | None:
    """Discounted gain of the first k, as a share of the best order's (Järvelin and Kekäläinen, 2002)."""
    return _measured(f"nDCG@{k}", question, outcome)


@register_cutoffs("mrr", needs=_NEEDS, fits=_has_gold)
def mrr_at(question: Question, outcome: Outcome, k: int) -> float | None:
    """One divided by the rank of the first gold passage, 0 if there is none among the first k."""
    return _measured(f"RR@{k}", question, outcome)


@register_cutoffs("success", needs=_NEEDS, fits=_has_gold)
def success(question: Question, outcome: Outcome, k: int) -> float | None:
    """1 if a gold passage is among the first k."""
    return _measured(f"Success@{k}", question, outcome)


@register_cutoffs("all_gold", needs=_NEEDS, fits=_has_gold)
def all_gold(question: Question, outcome: Outcome, k: int) -> float | None:
    """1 if all gold passages are among the first k: what a multi-hop question needs."""
    return float(_relevant(question) <= set(_ranking(outcome)[:k]))


@register("mrr", needs=_NEEDS, fits=_has_gold, range=SHARE)
def mrr(question: Question, outcome: Outcome) -> float | None:
    """One divided by the rank of the first gold passage, 0 if it was not retrieved."""
    return _measured("RR", question, outcome)


@register("map", needs=_NEEDS, fits=_has_gold, range=SHARE)
def average_precision(question: Question, outcome: Outcome) -> float | None:
    """Precision at the rank of each gold passage, averaged over all gold passages."""
    return _measured("AP", question, outcome)


def _grades(question: Question) -> dict[str, int]:
    """The gold passages' grades; what ``gold`` lists without a grade has 1."""
    return {**dict.fromkeys(question.gold, 1), **question.grades}


def _relevant(question: Question) -> set[str]:
    return {passage for passage, grade in _grades(question).items() if grade > 0}


def _ranking(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(outcome.retrieved))


def _measured(measure: str, question: Question, outcome: Outcome) -> float:
    ir_measures = _ir_measures()
    judged = [ir_measures.Qrel("q", passage, grade) for passage, grade in _grades(question).items()]
    ranking = _ranking(outcome)
    scored = [ir_measures.ScoredDoc("q", passage, float(len(ranking) - place)) for place, passage in enumerate(ranking)]
    return float(next(iter(ir_measures.iter_calc([_parsed(measure)], judged, scored))).value)


@cache
def _parsed(measure: str) -> Any:
    return _ir_measures().parse_measure(measure)


def _ir_measures() -> ModuleType:
    try:
        import ir_measures
    except ImportError as error:
        raise MissingDependency("retrieval metrics need the package ir-measures: pip install 'graft-rag[eval]'") from error
    module: ModuleType = ir_measures
    return module
