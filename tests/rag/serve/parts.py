"""Small stand-ins for a model and a retriever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from generators.cited import Cited
from rag.core.errors import GraftError
from rag.core.pipeline import Pipeline
from rag.core.trace import count
from rag.core.types import Filter, Generation, Hit, Passage, Prompt, Sampling

TEXT = "A suit may be worn outside for 90 minutes [1]. 服装 ok."
PASSAGE = Passage("safety/suits.md:0", "A suit may be worn outside for 90 minutes.", "safety/suits.md", "Suits", 10, 52, {"lang": "en"})


class Scripted:
    """Writes ``text`` word by word. ``fails_at``: raise ``error`` before the piece of that number; ``hangs_at``: wait there for ever."""

    def __init__(self, text: str = TEXT, error: GraftError | None = None, fails_at: int = 0, hangs_at: int = -1) -> None:
        self.text = text
        self.error = error
        self.fails_at = fails_at
        self.hangs_at = hangs_at
        self.cancelled = 0
        self.prompts: list[Prompt] = []

    @property
    def name(self) -> str:
        return "scripted"

    @property
    def window(self) -> int:
        return 4096

    @property
    def capabilities(self) -> frozenset[str]:
        return frozenset()

    async def agenerate(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Generation:
        pieces = [piece async for piece in self.astream(prompt, sampling)]
        assert isinstance(pieces[-1], Generation)
        return pieces[-1]

    async def astream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> AsyncIterator[str | Generation]:
        self.prompts.append(prompt)
        words = self.text.split(" ")
        for number, word in enumerate(words):
            if self.error is not None and number == self.fails_at:
                raise self.error
            if number == self.hangs_at:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            yield word if number == 0 else f" {word}"
        count(calls=1, prompt_tokens=40, generated_tokens=len(words))
        yield Generation(self.text, prompt_tokens=40, generated_tokens=len(words), model="scripted")

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        raise NotImplementedError

    async def acount(self, prompt: Prompt) -> int:
        if self.error is not None:
            raise self.error
        return 40

    async def aencode(self, text: str) -> list[int]:
        raise NotImplementedError


class OneShelf:
    """A corpus of one passage, and the retriever over it."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.filters: list[Filter | None] = []

    def __len__(self) -> int:
        return 1

    def verify(self) -> None:
        """What makes it a corpus for the health check."""

    async def run(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        self.filters.append(filter)
        if self.error is not None:
            raise self.error
        return [Hit(PASSAGE, 2.5, 1, "bm25")]


def pipeline(model: Scripted | None = None, shelf: OneShelf | None = None) -> Pipeline:
    """search, called by answer."""
    pipe = Pipeline()
    pipe.add("search", OneShelf() if shelf is None else shelf).add("answer", Cited(model or Scripted()))
    return pipe.connect("search", "answer.retriever")
