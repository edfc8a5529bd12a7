"""A model that replies as a test wants, for the steps of an algorithm."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field

import pytest

from rag.core.errors import PromptTooLong
from rag.core.trace import count
from rag.core.types import Filter, Generation, Hit, Message, Passage, Prompt, Sampling, Token

_PIECE = re.compile(r"\s*(?:[\u3400-\u9fff]|[^\s\u3400-\u9fff]+)|\s+")


def prompt_text(prompt: Prompt) -> str:
    """The prompt as one text: a raw prompt as it is, chat turns as "role: content" lines."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{message.role}: {message.content}" for message in prompt)


def pieces(text: str) -> list[str]:
    """``text`` cut into tokens that join to it: a word with the white space before it, or one Chinese character."""
    return _PIECE.findall(text)


def _id(piece: str) -> int:
    return sum(map(ord, piece)) % 1000


@dataclass
class ScriptedModel:
    """A `LanguageModel` whose text is ``reply``: one text for every prompt, texts in turn, or a function of the prompt's text.

    ``logprob`` gives each token's log-probability by its text. Every call is kept in ``prompts`` and ``samplings``; ``counted`` is the
    number of `acount` calls. A prompt takes one token per `pieces` and four per chat turn; one that leaves no room raises `PromptTooLong`.
    """

    reply: str | Sequence[str] | Callable[[str], str] = ""
    window: int = 4096
    logprob: Callable[[str], float] = lambda token: -0.1
    name: str = "scripted"
    capabilities: frozenset[str] = frozenset({"logprobs", "score"})
    prompts: list[Prompt] = field(default_factory=list)
    samplings: list[Sampling] = field(default_factory=list)
    counted: int = 0
    streamed: int = 0

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        taken = self._size(prompt)
        if taken + sampling.max_tokens > self.window:
            raise PromptTooLong(f"{taken} prompt tokens and {sampling.max_tokens} to write pass the window of {self.window}")
        text = self._reply(prompt)
        self.prompts.append(prompt)
        self.samplings.append(sampling)
        stops = [at for stop in sampling.stop if (at := text.find(stop)) >= 0]
        words = pieces(text[: min(stops)] if stops else text)
        kept = words[: sampling.max_tokens]
        count(calls=1, prompt_tokens=taken, generated_tokens=len(kept))
        return Generation(
            "".join(kept),
            self._tokens(kept) if sampling.logprobs is not None else (),
            "stop" if len(kept) == len(words) else "length",
            taken,
            len(kept),
            self.name,
        )

    async def astream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> AsyncIterator[str | Generation]:
        generation = await self.agenerate(prompt, sampling)
        self.streamed += 1
        for piece in pieces(generation.text):
            yield piece
        yield generation

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        words = pieces(continuation)
        return Generation(continuation, self._tokens(words), "stop", self._size(prompt), len(words), self.name)

    async def acount(self, prompt: Prompt) -> int:
        self.counted += 1
        return self._size(prompt)

    async def aencode(self, text: str) -> list[int]:
        return [_id(word) for word in pieces(text)]

    def _reply(self, prompt: Prompt) -> str:
        if callable(self.reply):
            return self.reply(prompt_text(prompt))
        return self.reply if isinstance(self.reply, str) else self.reply[len(self.prompts)]

    def _size(self, prompt: Prompt) -> int:
        if isinstance(prompt, str):
            return len(pieces(prompt))
        return sum(4 + len(pieces(message.content)) for message in prompt)

    def _tokens(self, words: Sequence[str]) -> tuple[Token, ...]:
        tokens, at = [], 0
        for word in words:
            tokens.append(Token(word, _id(word), self.logprob(word), at, at + len(word)))
            at += len(word)
        return tuple(tokens)


@dataclass
class ScriptedRetriever:
    """A `Retriever` that finds the same texts for every query; the passage ids are "p1", "p2", … and calls are kept."""

    texts: Sequence[str]
    title: str = ""
    calls: list[tuple[str, int | None, Filter | None]] = field(default_factory=list)

    async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        self.calls.append((query, k, filter))
        return hits_of(*self.texts[:k], title=self.title)


def hits_of(*texts: str, title: str = "", retriever: str = "scripted") -> list[Hit]:
    """Hits in the order of ``texts``, with ids "p1", "p2", … and falling scores."""
    return [
        Hit(Passage(f"p{rank}", text, document=f"d{rank}", title=title), 1 / rank, rank, retriever)
        for rank, text in enumerate(texts, start=1)
    ]


@pytest.fixture
def chat() -> list[Message]:
    """A chat prompt of two turns."""
    return [Message("system", "You are brief."), Message("user", "Who keeps the lamp?")]
