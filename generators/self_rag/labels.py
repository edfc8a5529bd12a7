"""How likely a model is to begin its reply with each of a few words: a classifier made of a chat model."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from generators.models.checks import MAX_LOGPROBS
from generators.models.together import together
from generators.self_rag.scores import ABSENT
from rag.core.errors import MissingCapability
from rag.core.protocols import LanguageModel
from rag.core.types import Message, Sampling


class LabelReader:
    """Reads the probabilities of labels at the first position of a reply.

    A model with "token_ids" is asked for exactly the tokens that labels begin with. Of another, the 20 most likely tokens are matched by
    their text: a label counts through every token that it alone begins with, and has probability 0 where there is none.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._ids: dict[tuple[str, ...], dict[int, int]] = {}

    async def logprobs(self, chat: Sequence[Message], labels: tuple[str, ...]) -> list[float]:
        """The log-probability of each label, in their order; `ABSENT` where the model names none of its tokens."""
        if "token_ids" in self._model.capabilities:
            label_of = self._ids[labels] = self._ids.get(labels) or await self._first_tokens(labels)
            first = (await self._model.agenerate(chat, Sampling(max_tokens=1, logprob_ids=tuple(label_of)))).tokens[:1]
            read = [(label_of.get(other), logprob) for token in first for other, _, logprob in token.top]
        else:
            first = (await self._model.agenerate(chat, Sampling(max_tokens=1, logprobs=MAX_LOGPROBS))).tokens[:1]
            read = [(_label_of(text, labels), logprob) for token in first for _, text, logprob in token.top]
        return [_sum(logprob for label, logprob in read if label == number) for number in range(len(labels))]

    async def _first_tokens(self, labels: tuple[str, ...]) -> dict[int, int]:
        """Which label each first token stands for, over the ways to write a label; a token that two labels share stands for none.

        Raises `MissingCapability` if that leaves a label without any.
        """
        spellings = [(number, text) for number, label in enumerate(labels) for text in _spellings(label)]
        encoded = await together(self._model.aencode(text) for _, text in spellings)
        begun: dict[int, set[int]] = {}
        for (number, _), ids in zip(spellings, encoded, strict=True):
            begun.setdefault(ids[0], set()).add(number)
        own = {token: numbers.pop() for token, numbers in begun.items() if len(numbers) == 1}
        for number, label in enumerate(labels):
            if number not in own.values():
                raise MissingCapability(
                    f"SelfRAG: the tokenizer of {self._model.name} begins the label '{label}' as it begins another of {', '.join(labels)},"
                    " so their probabilities cannot be told apart; choose another model, or another language for the prompts"
                )
        return own


def _spellings(label: str) -> list[str]:
    return list(dict.fromkeys([label, label.capitalize(), f" {label}", f" {label.capitalize()}"]))


def _label_of(token: str, labels: Sequence[str]) -> int | None:
    """The one label that ``token`` begins, in any case."""
    start = token.strip().casefold()
    begun = [number for number, label in enumerate(labels) if start and label.startswith(start)]
    return begun[0] if len(begun) == 1 else None


def _sum(logprobs: Iterable[float]) -> float:
    found = list(logprobs)
    largest = max(found, default=ABSENT)
    return ABSENT if largest == ABSENT else largest + math.log(math.fsum(math.exp(logprob - largest) for logprob in found))
