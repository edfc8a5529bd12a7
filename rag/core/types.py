"""The values that travel along the edges of a pipeline. All frozen: they are passed by reference and never copied."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, Union

Scalar = Union[str, int, float, bool, None]
"""A metadata value: what JSON can hold without nesting."""

Filter = Mapping[str, Any]
"""A condition on passage metadata: ``{"lang": "en", "year": {"gte": 2020}, "team": ["ops", "hr"]}`` (see `retrievers.filters`)."""

_NO_METADATA: Mapping[str, Scalar] = MappingProxyType({})
_NO_BIAS: Mapping[int, float] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Document:
    """One source document as a reader gives it.

    ``id`` is stable between runs (a path relative to the indexed folder, or the record's own id). ``text`` is plain text, or Markdown
    when ``format`` is "markdown" (then the heading chunker applies).
    """

    id: str
    text: str
    title: str = ""
    source: str = ""
    format: Literal["text", "markdown"] = "text"
    metadata: Mapping[str, Scalar] = field(default_factory=lambda: _NO_METADATA)


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a document, the unit of retrieval. ``text == document.text[start:end]`` unless the source was one record per passage."""

    id: str
    text: str
    document: str = ""
    title: str = ""
    start: int = 0
    end: int = 0
    metadata: Mapping[str, Scalar] = field(default_factory=lambda: _NO_METADATA)


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage found for a query. ``rank`` counts from 1; a larger ``score`` is better, and only comparable within one ``retriever``.

    ``corpus`` tells the hits of one corpus from those of another; "" where nobody said.
    """

    passage: Passage
    score: float
    rank: int
    retriever: str = ""
    corpus: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat prompt."""

    role: Literal["system", "user", "assistant"]
    content: str


Prompt = Union[str, Sequence[Message]]
"""Raw text that the model continues, or chat messages that the model's own template renders (once).

A last message of the assistant is the beginning of the answer, which a model with the capability "prefix" continues.
"""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model writes. ``temperature`` 0 is greedy.

    ``logprobs``: None asks for none; n ≥ 0 asks for each token's own log-probability and its n most likely alternatives; ``logprob_ids``
    asks for these alternatives instead (capability "token_ids").
    ``stop`` strings end the text and are not part of it. ``logit_bias`` maps token ids to an addend on their logits. ``until`` is asked
    with the text so far, after each piece of it, whether that is enough: a model that can ends there (finish "stop") and saves the rest.
    ``presence_penalty`` is taken from the logit of each token that was written already, ``frequency_penalty`` as often as it was.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    logit_bias: Mapping[int, float] = field(default_factory=lambda: _NO_BIAS)
    logprob_ids: tuple[int, ...] = ()
    until: Callable[[str], bool] | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0


@dataclass(frozen=True, slots=True)
class SamplingRequest:
    """What one run asks of the writing of its answer, in the place of the pipeline's own settings; None leaves a setting as it is.

    A method that takes it has a port ``sampling``. ``max_tokens`` can only lower what the pipeline allows.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None

    def applied_to(self, sampling: Sampling) -> Sampling:
        """``sampling`` with what is asked for."""
        asked = {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}
        return replace(sampling, **asked | {"max_tokens": min(sampling.max_tokens, asked.get("max_tokens", sampling.max_tokens))})


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token: ``text == generation.text[start:end]``, natural-log ``logprob``.

    ``top`` holds the most likely alternatives as (token id, text, logprob), best first. A token that completes no character yet (a byte of
    a longer UTF-8 character) has an empty span.
    """

    text: str
    id: int
    logprob: float
    start: int
    end: int
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """What a model wrote. ``tokens`` is empty unless log-probabilities were asked for; offsets come from the engine."""

    text: str
    tokens: tuple[Token, ...] = ()
    finish: Literal["stop", "length"] = "stop"
    prompt_tokens: int = 0
    generated_tokens: int = 0
    model: str = ""

    @property
    def logprob(self) -> float:
        """Sum of the tokens' log-probabilities (0.0 when none were asked for)."""
        return sum(token.logprob for token in self.tokens)


@dataclass(frozen=True, slots=True)
class Citation:
    """``answer.text[start:end]`` is the marker, such as "[2]"; ``passage`` is what it points to.

    ``supported`` is the share in [0, 1] of the claim's content words that the passage holds; ``valid`` says that it passes the threshold.
    """

    number: int
    passage: Passage
    start: int
    end: int
    supported: float
    valid: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """A final answer. ``sources[n - 1]`` is what "[n]" refers to; ``notes`` are remarks for the reader (what was dropped, a limit).

    ``finish`` is "length" where the model was cut off by ``max_tokens``, as far as the method tells.
    """

    text: str
    citations: tuple[Citation, ...] = ()
    sources: tuple[Hit, ...] = ()
    refused: bool = False
    notes: tuple[str, ...] = ()
    finish: Literal["stop", "length"] = "stop"

    def __str__(self) -> str:
        lines = [self.text]
        cited = sorted({c.number for c in self.citations})
        if cited:
            lines.append("")
        for number in cited:
            passage = self.sources[number - 1].passage
            lines.append(f"[{number}] {passage.title or passage.document} ({passage.document})")
        return "\n".join(lines)
