"""Models that know a text and continue it from wherever it stands, with probabilities by token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from rag.core.types import Filter, Hit, Message, Passage, Prompt
from tests.generators.conftest import ScriptedModel

CONTINUES = frozenset({"logprobs", "prefix"})
CALLS = frozenset({"logit_bias", "token_ids", "prefix"})


def user_turn(prompt: Prompt) -> str:
    """What the user says last in a chat."""
    assert not isinstance(prompt, str)
    return next(message.content for message in reversed(prompt) if message.role == "user")


def begun_text(prompt: Prompt) -> str:
    """The beginning of the answer that the model is to continue."""
    return prompt[-1].content if isinstance(prompt[-1], Message) and prompt[-1].role == "assistant" else ""


@dataclass
class Storyteller(ScriptedModel):
    """Writes the sentences of ``story`` from the one whose turn it is; those of ``informed`` where the prompt holds documents.

    Each sentence ends in its one full stop. ``unsure`` gives the probability of the tokens that are not certain. A prompt for a question
    gets ``asks(prompt's user turn)``.
    """

    story: list[str] = field(default_factory=list)
    informed: list[str] = field(default_factory=list)
    unsure: dict[str, float] = field(default_factory=dict)
    asks: Callable[[str], str] = lambda text: "What is it?"
    capabilities: frozenset[str] = CONTINUES

    def __post_init__(self) -> None:
        self.logprob = lambda token: math.log(self.unsure.get(token, 1.0))

    def _reply(self, prompt: Prompt) -> str:
        if 'to which the answer is "' in user_turn(prompt) or "它的答案是" in user_turn(prompt):
            return self.asks(user_turn(prompt))
        documents = "Search results:" in user_turn(prompt) or "搜索结果：" in user_turn(prompt)
        written = begun_text(prompt)
        known = self.informed if documents and self.informed else self.story
        return "".join(known[written.count(".") + written.count("。") :])


@dataclass
class Reciter(ScriptedModel):
    """Continues ``text`` from where the beginning of the answer ends: a model that decodes greedily."""

    text: str = ""
    capabilities: frozenset[str] = CONTINUES

    def _reply(self, prompt: Prompt) -> str:
        return self.text[len(begun_text(prompt)) :]


@dataclass
class Library:
    """A retriever that finds two passages of its own for every query, "q1a" and "q1b" for the first, …; the same query finds the same."""

    seen: list[str] = field(default_factory=list)
    calls: list[tuple[str, int | None, Filter | None]] = field(default_factory=list)

    async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        self.calls.append((query, k, filter))
        if query not in self.seen:
            self.seen.append(query)
        number = self.seen.index(query) + 1
        names = [f"q{number}{letter}" for letter in "abcdef"[:k]]
        return [Hit(Passage(name, f"Text of {name}."), 1 / rank, rank) for rank, name in enumerate(names, start=1)]

    @property
    def queries(self) -> list[str]:
        return [query for query, _, _ in self.calls]
