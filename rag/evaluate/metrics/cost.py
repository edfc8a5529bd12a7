"""What an answer cost: the counters of its trace and its times. A counter that never counted is 0."""

from __future__ import annotations

from rag.evaluate.metrics.registry import AMOUNT, anything, register
from rag.evaluate.types import Outcome, Question


@register("calls", needs="nothing", fits=anything, higher_is_better=False, range=AMOUNT)
def calls(question: Question, outcome: Outcome) -> float | None:
    """Calls of language models."""
    return float(outcome.counts.get("calls", 0))


@register("prompt_tokens", needs="nothing", fits=anything, higher_is_better=False, range=AMOUNT)
def prompt_tokens(question: Question, outcome: Outcome) -> float | None:
    """Tokens that models read, over all calls."""
    return float(outcome.counts.get("prompt_tokens", 0))


@register("generated_tokens", needs="nothing", fits=anything, higher_is_better=False, range=AMOUNT)
def generated_tokens(question: Question, outcome: Outcome) -> float | None:
    """Tokens that models wrote, over all calls."""
    return float(outcome.counts.get("generated_tokens", 0))


@register("retrievals", needs="nothing", fits=anything, higher_is_better=False, range=AMOUNT)
def retrievals(question: Question, outcome: Outcome) -> float | None:
    """Retrievals that the method made."""
    return float(outcome.counts.get("retrievals", 0))


@register("first_token", needs="nothing", fits=anything, higher_is_better=False, range=AMOUNT)
def first_token(question: Question, outcome: Outcome) -> float | None:
    """Seconds to the first token of the answer; does not apply where the answer was not streamed."""
    return outcome.first_token


@register("seconds", needs="nothing", fits=anything, higher_is_better=False, range=AMOUNT)
def seconds(question: Question, outcome: Outcome) -> float | None:
    """Seconds from question to answer."""
    return outcome.seconds
