"""A model whose next-token probabilities are given, with the answer begun in its prompt."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

from rag.core.trace import count
from rag.core.types import Generation, Prompt, Sampling, Token
from tests.generators.conftest import ScriptedModel

ALL = frozenset({"logprobs", "score", "token_ids", "prefix", "logit_bias"})
_TOKEN = re.compile(r"\s*\[+|->|\]|\s*[^\s\[\]]+|\s+")


def tokens_of(text: str) -> list[str]:
    """``text`` as tokens that join to it; an opening bracket is one with the space before it."""
    return _TOKEN.findall(text)


@dataclass
class PathModel(ScriptedModel):
    """Knows whole answers, ``paths``, calls and results included. Its next token is that of the first path which what is written begins;
    those of the other paths follow in rank: probabilities 0.5, 0.25, … Written to the end of a path, or off all of them, it stops.
    """

    paths: tuple[str, ...] = ()
    capabilities: frozenset[str] = ALL
    begun: list[str] = field(default_factory=list)
    _ids: dict[str, int] = field(default_factory=dict)

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        written = "" if isinstance(prompt, str) or prompt[-1].role != "assistant" else prompt[-1].content
        self.begun.append(written)
        text, tokens, finish = "", [], "length"
        while len(tokens) < sampling.max_tokens:
            ranked = self._ranked(written + text)
            token = max(ranked, key=lambda token: math.log(ranked[token]) + sampling.logit_bias.get(self.token_id(token), 0.0))
            top = tuple((self.token_id(name), name, math.log(p)) for name, p in ranked.items())[: sampling.logprobs or 0]
            tokens.append(Token(token, self.token_id(token), math.log(ranked[token]), len(text), len(text) + len(token), top))
            text += token
            stops = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
            if not token or stops:
                text, finish = text[: min(stops, default=len(text))], "stop"
                break
        count(calls=1, generated_tokens=len(tokens))
        kept = tuple(token for token in tokens if token.start < len(text) or not token.text) if sampling.logprobs is not None else ()
        return Generation(text, kept, finish, self._size(prompt), len(tokens), self.name)  # type: ignore[arg-type]

    async def aencode(self, text: str) -> list[int]:
        return [self.token_id(token) for token in tokens_of(text)]

    def token_id(self, token: str) -> int:
        return self._ids.setdefault(token, len(self._ids))

    def _ranked(self, written: str) -> dict[str, float]:
        following: dict[str, Any] = {}
        for path in self.paths:
            if path.startswith(written):
                following.setdefault(next(iter(tokens_of(path[len(written) :])), ""), None)
        ranked = {token: 0.5 ** (rank + 1) for rank, token in enumerate(following)}
        return ranked if "" in ranked else {**ranked, "": 1e-9}
