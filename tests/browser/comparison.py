"""A comparison like a real one, made by rule: three pipelines, four kinds of question, failures, refusals, and hostile text."""

from __future__ import annotations

import math
import random
from typing import Any

from rag.core.types import Passage
from rag.evaluate.compare import Comparison, compare
from rag.evaluate.types import DataSet, Outcome, Question

METRICS = ("match", "squad2_f1", "recall@5", "citation_precision", "calls", "prompt_tokens", "generated_tokens", "seconds")
KINDS = ("bridge", "comparison", "single hop", "unanswerable")
COUNT = 64

SCRIPT = "<script>alert(1)</script>"
IMAGE = '</script><img src=x onerror="alert(2)">'
ARABIC = "كم تستغرق الرحلة إلى القمر؟"
CHINESE = "登月舱的乘员在月面停留了多长时间？"
LONG = "Donau" + "dampfschifffahrt" * 12
HOSTILE = (SCRIPT, IMAGE, ARABIC, CHINESE, LONG)
"""What the first questions ask."""

_PLACES = ("Copernicus", "Tycho", "Plato", "Kepler", "Clavius", "Eratosthenes", "Archimedes", "Aristarchus")
_SKILL = {"direct": 0.25, "cited": 0.6, "flare-over-a-fused-index": 0.7}
_CALLS = {"direct": 1, "cited": 1, "flare-over-a-fused-index": 4}

CONFIGURATIONS = {
    name: {"pipeline": f"nodes:\n  answer:\n    type: Scripted\n    note: {SCRIPT}\n", "models": ["scripted"]} for name in _SKILL
}
RATES: dict[str, float | None] = {"direct": 21.5, "cited": 9.75, "flare-over-a-fused-index": 2.1}
SETTINGS = {"data": "craters.jsonl", "sample": COUNT, "limit": None, "in_flight": 64}


def scripted() -> Comparison:
    """The comparison, the same each time."""
    draw = random.Random(7)
    passages = [Passage(f"crater-{n}:1", _text(n), f"crater-{n}", f"{_PLACES[n % 8]} {n}") for n in range(COUNT)]
    passages[0] = Passage("crater-0:1", f"{SCRIPT} {IMAGE} {LONG}", "crater-0", IMAGE)
    questions = [_question(n) for n in range(COUNT)]
    data = DataSet("craters", questions, passages, METRICS[:4], "en", "CC BY 4.0", "5b1d" * 16, ("2 gold passages are not in the corpus.",))
    outcomes = {name: [_outcome(name, n, question, draw) for n, question in enumerate(questions)] for name in _SKILL}
    return compare(data, outcomes, METRICS, seed=1)


def _text(n: int) -> str:
    return f"{_PLACES[n % 8]} {n} is an impact crater. It was mapped in {1600 + n}, and is {20 + n} kilometres across."


def _question(n: int) -> Question:
    kind = KINDS[n % 4]
    text = HOSTILE[n] if n < len(HOSTILE) else f"In which year was {_PLACES[n % 8]} {n} mapped?"
    answerable = kind != "unanswerable"
    return Question(f"q{n:02}", text, (str(1600 + n),) if answerable else (), gold=(f"crater-{n}:1",), answerable=answerable, kind=kind)


def _outcome(name: str, n: int, question: Question, draw: random.Random) -> Outcome:
    knows = draw.random() < _SKILL[name] and n >= len(HOSTILE)
    seconds = _CALLS[name] * draw.uniform(0.2, 0.5)
    if n % 10 == 9 and name == "cited":
        return Outcome(question.id, error=f"ModelUnavailable: the server closed the connection {SCRIPT}", seconds=seconds)
    right = question.answers[0] if question.answers else "not in the passages"
    text = HOSTILE[n] if n < len(HOSTILE) else right if knows else f"It was mapped in {1700 + n}."
    sure = min(0.99, max(0.05, draw.gauss(0.8 if knows else 0.45, 0.15)))
    if name != "direct":
        text += " [1]"
    found = () if name == "direct" else tuple(f"crater-{i % COUNT}:1" for i in range(n + (not knows), n + 5))
    counts = {"calls": _CALLS[name], "prompt_tokens": 60 + 300 * len(found), "generated_tokens": 12.0}
    return Outcome(
        question.id,
        text,
        refused=not question.answerable and knows,
        citations=tuple((id, knows) for id in found[:1]),
        retrieved=found,
        counts={**counts, "logprob": 12 * math.log(sure), "logprob_tokens": 12},
        seconds=seconds,
        trace=_trace(question.question, text, seconds),
    )


def _trace(question: str, text: str, seconds: float) -> dict[str, Any]:
    search = _span("search", 0.0, seconds * 0.2, children=[_span("bm25", 0.0, seconds * 0.05), _span("dense", 0.0, seconds * 0.2)])
    counts = {"calls": 1.0, "generated_tokens": 12.0}
    notes = ["the window was cut to 4,096 tokens"]
    answer = _span("answer", seconds * 0.2, seconds * 0.8, output=text, counts=counts, notes=notes)
    return _span("pipeline", 0.0, seconds, inputs={"question": question}, children=[search, answer])


def _span(node: str, at: float, seconds: float, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {"inputs": {}, "output": "", "counts": {}, "notes": [], "error": "", "children": []}
    return {"node": node, "at": at, "seconds": seconds, **empty, **more}
