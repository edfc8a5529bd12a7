"""Self-RAG's judgements as numbers (Asai et al., ICLR 2024, arXiv 2310.11511, section 3.3): pure functions of log-probabilities."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from rag.core.types import Hit, Token

ABSENT = -math.inf
"""The log-probability of a label that the model does not name: its probability is 0, not a small number."""


@dataclass(frozen=True, slots=True)
class Group:
    """Labels that exclude one another, as the trained vocabulary writes them, and what each is worth."""

    name: str
    tokens: tuple[str, ...]
    values: tuple[float, ...]

    def score(self, logprobs: Sequence[float]) -> float:
        """The mean of the values, weighted by the labels' probabilities; ``logprobs`` are in the order of ``tokens``.

        Only differences between the log-probabilities matter. It is 0 if no label has a probability.
        """
        largest = max(logprobs)
        if largest == ABSENT:
            return 0.0
        weights = [math.exp(logprob - largest) for logprob in logprobs]
        return math.fsum(weight * value for weight, value in zip(weights, self.values, strict=True)) / math.fsum(weights)


RETRIEVE = Group("Retrieve", ("[Retrieval]", "[No Retrieval]"), (1.0, 0.0))
ISREL = Group("ISREL", ("[Relevant]", "[Irrelevant]"), (1.0, 0.0))
ISSUP = Group("ISSUP", ("[Fully supported]", "[Partially supported]", "[No support / Contradictory]"), (1.0, 0.5, 0.0))
ISUSE = Group("ISUSE", tuple(f"[Utility:{n}]" for n in range(1, 6)), (-1.0, -0.5, 0.0, 0.5, 1.0))
GROUPS = (RETRIEVE, ISREL, ISSUP, ISUSE)

CONTINUE = "[Continue to Use Evidence]"
PASSAGE = ("<paragraph>", "</paragraph>")
CONTROL = (*(token for group in GROUPS for token in group.tokens), CONTINUE, *PASSAGE)
"""The 15 tokens that Self-RAG adds to a tokenizer."""

_PASSAGE = re.compile(r"<paragraph>.*?</paragraph>", re.DOTALL)
_CONTROL = re.compile("|".join(map(re.escape, CONTROL)))


def without_control(text: str) -> str:
    """``text`` without control tokens, and without the passages between ``<paragraph>`` and ``</paragraph>``."""
    return _CONTROL.sub("", _PASSAGE.sub("", text))


@dataclass(frozen=True, slots=True)
class Segment:
    """What the model wrote from one passage (``hit``; None: from what it knows), and how it judges that.

    ``relevance`` and ``support`` lie in [0, 1], ``utility`` in [-1, 1]; each is 0 where the model gave no such judgement. ``contradicted``
    says that "no support" is its own verdict, ``ended`` that the answer is complete. ``tokens`` are those of the text.
    """

    text: str
    hit: Hit | None = None
    relevance: float = 0.0
    support: float = 0.0
    utility: float = 0.0
    contradicted: bool = False
    ended: bool = True
    cut: bool = False
    tokens: tuple[Token, ...] = ()

    @property
    def likelihood(self) -> float:
        """exp of the mean log-probability of the tokens: p(y_t | x, d, y_<t) made independent of length. 0 without tokens."""
        return math.exp(math.fsum(token.logprob for token in self.tokens) / len(self.tokens)) if self.tokens else 0.0

    def score(self, weights: Sequence[float], seq_score: bool = False) -> float:
        """S = Σ w_G s_G over ISREL, ISSUP, ISUSE, and p(y_t | x, d, y_<t) on top with ``seq_score``.

        S lies in [-0.5, 2.5] with the weights 1, 1, 0.5.
        """
        judgements = (self.relevance, self.support, self.utility)
        score = math.fsum(weight * judgement for weight, judgement in zip(weights, judgements, strict=True))
        return score + self.likelihood if seq_score else score
