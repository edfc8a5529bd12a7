"""Models with given probabilities: one that writes reflection tokens, one that answers the questions of the prompted vocabulary."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from generators.prompts import render
from generators.self_rag.scores import CONTROL, Segment
from generators.self_rag.writer import SegmentWriter
from rag.core.trace import Span, TextDelta, count, listener, span
from rag.core.types import Answer, Generation, Hit, Message, Prompt, Sampling, Token
from tests.generators.conftest import ScriptedModel, pieces, prompt_text

_CONTROL = re.compile(f"({'|'.join(map(re.escape, CONTROL))})")
_SYSTEMS = {
    render(f"self_rag/{name}_system", language): name
    for name in ("retrieve", "relevance", "support", "utility")
    for language in ("en", "zh")
}
IDS = {token: 10_000 + number for number, token in enumerate(CONTROL)}


def _log(probability: float) -> float:
    return math.log(probability) if probability > 0 else -math.inf


@dataclass
class TrainedModel(ScriptedModel):
    """Writes ``reply`` with control tokens in it; ``beliefs(prompt, written)`` are the probabilities of control tokens where it writes
    ``written``. ``visible`` says whether its tokenizer shows them in the text, as it does unless they are marked special.
    """

    capabilities: frozenset[str] = frozenset({"logprobs", "token_ids"})
    beliefs: Callable[[str, str], Mapping[str, float]] = lambda prompt, written: {}
    visible: bool = True
    lacking: tuple[str, ...] = ()

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        text = self._reply(prompt)
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        words = [word for part in _CONTROL.split(text) if part for word in ([part] if part in IDS else pieces(part))]
        kept = words[: sampling.max_tokens]
        count(calls=1, prompt_tokens=self._size(prompt), generated_tokens=len(kept))
        tokens: list[Token] = []
        at = 0
        for word in kept:
            beliefs = self.beliefs(prompt_text(prompt), word)
            ranked = sorted(((IDS[t], t, _log(beliefs.get(t, 0))) for t in CONTROL if IDS[t] in sampling.logprob_ids), key=lambda a: -a[2])
            shown = word if self.visible or word not in IDS else ""
            tokens.append(Token(shown, IDS.get(word, len(word)), self.logprob(word), at, at + len(shown), tuple(ranked)))
            at += len(shown)
        finish = "stop" if len(kept) == len(words) else "length"
        return Generation("".join(token.text for token in tokens), tuple(tokens), finish, 0, len(kept), self.name)

    async def aencode(self, text: str) -> list[int]:
        return [1, 2, 3] if text in self.lacking else [IDS[text]]


@dataclass
class JudgingModel(ScriptedModel):
    """Writes ``reply``, and answers a judgement's prompt with ``judge(name, user's text)``: the probabilities of words.

    Each spelling of a word is a token of its own; the probability goes to the word as ``judge`` spells it.
    """

    capabilities: frozenset[str] = frozenset({"logprobs", "token_ids", "prefix"})
    judge: Callable[[str, str], Mapping[str, float]] = lambda name, text: {}
    asked: list[str] = field(default_factory=list)
    first_ids: dict[str, int] = field(default_factory=dict)

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        name = _SYSTEMS.get(prompt[0].content) if isinstance(prompt[0], Message) else None
        if name is None:
            return await super().agenerate(prompt, sampling)
        self.asked.append(name)
        self.samplings.append(sampling)
        assert sampling.max_tokens == 1
        words = self.judge(name, prompt[-1].content)
        if sampling.logprob_ids:
            spelled = {token: word for word, token in self.first_ids.items()}
            read = [(token, spelled[token], words.get(spelled[token], 0.0)) for token in sampling.logprob_ids]
        else:
            assert sampling.logprobs == 20
            read = [(-1, word, probability) for word, probability in words.items()]
        top = tuple(sorted(((token, word, _log(p)) for token, word, p in read), key=lambda a: -a[2]))
        count(calls=1)
        return Generation("x", (Token("x", 0, -0.1, 0, 1, top),), "length", 1, 1, self.name)

    async def aencode(self, text: str) -> list[int]:
        return [self.first_ids.setdefault(text, len(self.first_ids)), 7]


@dataclass
class Spoken:
    """A vocabulary that says what a test wants: ``write(passage id or "", answer so far) -> Segment``; ``wants`` is P(retrieve)."""

    write: Callable[[str, str], Segment]
    wants: float | Callable[[str], float] = 1.0
    description: str = "scripted"
    spare: int = 0
    calls: list[tuple[str, str, int]] = field(default_factory=list)

    def prompt(self, question: str, hit: Hit | None, answer: str) -> Prompt:
        return f"{question} {hit.passage.text if hit else ''} {answer}"

    async def retrieval(self, question: str, answer: str) -> tuple[float, bool]:
        probability = self.wants(answer) if callable(self.wants) else self.wants
        return probability, probability > 0.5

    async def segment(self, question: str, hit: Hit | None, answer: str, max_tokens: int) -> Segment:
        passage = hit.passage.id if hit else ""
        self.calls.append((passage, answer, max_tokens))
        await asyncio.sleep(0)
        made = self.write(passage, answer)
        return Segment(**{name: getattr(made, name) for name in made.__slots__} | {"hit": hit})


def writer(spoken: Spoken, mode="always", threshold=0.2, weights=(1.0, 1.0, 0.5), seq_score=False, hard_constraints=False, window=4096):
    return SegmentWriter(ScriptedModel(window=window), spoken, mode, threshold, weights, seq_score, hard_constraints)


def tokens(text: str, logprob: float = -0.1) -> tuple[Token, ...]:
    """The tokens of ``text``."""
    made: list[Token] = []
    for word in pieces(text):
        at = made[-1].end if made else 0
        made.append(Token(word, 0, logprob, at, at + len(word)))
    return tuple(made)


def heard(coroutine) -> tuple[Answer, list[object], Span]:
    """The answer of a run, what it emitted, and its trace; the text it streamed is the answer's."""
    events: list[object] = []
    with listener(events.append), span("answer") as here:
        answer = asyncio.run(coroutine)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)) == answer.text
    return answer, events, here


def deltas(events: Sequence[object]) -> list[str]:
    """The text pieces among ``events``."""
    return [event.text for event in events if isinstance(event, TextDelta)]
