"""The contracts between the rooms. A plain name blocks; its ``a``-prefixed twin is the coroutine and the one that methods call.

A protocol with exactly one method can be fed by a call edge: the graph turns everything upstream of the edge into that method.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from rag.core.types import Filter, Generation, Hit, Prompt, Sampling

if TYPE_CHECKING:
    import numpy as np


@runtime_checkable
class Retriever(Protocol):
    """Turns a query into ranked passages."""

    async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """Return at most ``k`` hits (the retriever's own default if None), best first. An empty or damaged corpus raises, never ``[]``."""
        ...


@runtime_checkable
class LanguageModel(Protocol):
    """A frozen model that writes. See `rag.core.types.Sampling` for the knobs."""

    @property
    def name(self) -> str:
        """What the engine calls the model (or the adapter it wears)."""
        ...

    @property
    def window(self) -> int:
        """Tokens that prompt and generation may hold together."""
        ...

    @property
    def capabilities(self) -> frozenset[str]:
        """A subset of these.

        "logprobs": log-probabilities of what it writes; "score": `ascore`; "logit_bias": `Sampling.logit_bias`; "token_ids": `aencode` and
        `Sampling.logprob_ids`; "prefix": it continues a last message of the assistant; "adapters": it wears them.
        """
        ...

    async def agenerate(self, prompt: Prompt, sampling: Sampling = ...) -> Generation:
        """Write one continuation of ``prompt``."""
        ...

    def astream(self, prompt: Prompt, sampling: Sampling = ...) -> AsyncIterator[str | Generation]:
        """Yield text pieces as they are written and, last, the whole `Generation`."""
        ...

    async def ascore(self, prompt: Prompt, continuation: str) -> Generation:
        """Log-likelihood of ``continuation`` after ``prompt``: its tokens with their log-probabilities and offsets in it."""
        ...

    async def acount(self, prompt: Prompt) -> int:
        """Tokens that ``prompt`` takes, the chat template included."""
        ...

    async def aencode(self, text: str) -> list[int]:
        """The ids of ``text`` as the model would write it. Raises `MissingCapability` without "token_ids"."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def identity(self) -> str:
        """Names the weights and settings: two encoders with one identity give the same vectors."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: list[str], kind: Literal["query", "passage"] = "passage") -> np.ndarray:
        """Return float32 of shape [len(texts), dim], rows of length 1."""
        ...
