"""A model that judges with given probabilities, and an evaluator with given scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from rag.core.trace import count
from rag.core.types import Generation, Prompt, Sampling, Token
from tests.generators.conftest import ScriptedModel, prompt_text

LABEL_IDS = {"Yes": 1, " Yes": 2, "yes": 3, " yes": 4, "No": 5, " No": 6, "no": 7, " no": 8, "是": 11, " 是": 12, "否": 15, " 否": 16}


@dataclass
class JudgingModel(ScriptedModel):
    """Says "Yes" with the probability ``yes(prompt)`` and "No" with the rest of ``mass``, where it is asked to judge; else `ScriptedModel`.

    With the capability "token_ids" it gives the probabilities of the ids asked for, and none of a label that was not.
    """

    yes: Callable[[str], float] = lambda prompt: 0.9
    mass: float = 0.5
    judged: list[str] = field(default_factory=list)
    judgings: list[Sampling] = field(default_factory=list)

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        text = prompt_text(prompt)
        if "Yes or No?" not in text and "是还是否？" not in text:
            return await super().agenerate(prompt, sampling)
        self.judged.append(text)
        self.judgings.append(sampling)
        count(calls=1)
        p = self.yes(text)
        labels = ("是", "否") if "是还是否？" in text else ("Yes", "No")
        shares = {labels[0]: p * self.mass, labels[1]: (1 - p) * self.mass, "Maybe": 1 - self.mass}
        ranked = sorted(
            ((LABEL_IDS.get(label, 99), label, math.log(share)) for label, share in shares.items() if share > 0), key=lambda e: -e[2]
        )
        top = tuple(entry for entry in ranked if not sampling.logprob_ids or entry[0] in sampling.logprob_ids)
        return Generation(labels[0], (Token(labels[0], 1, -0.1, 0, len(labels[0]), top),), "length")

    async def aencode(self, text: str) -> list[int]:
        return [LABEL_IDS[text]]


@dataclass
class GivenScores:
    """An `Evaluator` that gives the score of the first of ``scores`` whose key the text holds, else ``otherwise``."""

    scores: dict[str, float] = field(default_factory=dict)
    otherwise: float = 0.0
    asked: list[str] = field(default_factory=list)

    async def ascore(self, question: str, texts: list[str]) -> list[float]:
        self.asked += texts
        return [next((score for key, score in self.scores.items() if key in text), self.otherwise) for text in texts]
