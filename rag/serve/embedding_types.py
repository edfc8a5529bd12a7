"""Embeddings in OpenAI's format: the request, the answer, and the vectors of an encoder.

Source: https://platform.openai.com/docs/api-reference/embeddings/create, and what OpenAI's Python client sends and reads: it asks for
base64 if the caller does not say otherwise, and takes it for little-endian float32.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Union, runtime_checkable

import numpy as np
from pydantic import BaseModel, BeforeValidator, Field

from rag.core.errors import ModelError
from rag.serve.errors import RequestError
from rag.serve.openai_answers import ABSENT, Notes, Whole
from rag.serve.openai_types import MAX_QUESTION, NotFollowed, Strict, Text, checked_text, no_token_ids, not_followed

if TYPE_CHECKING:
    from rag.core.protocols import Encoder

MAX_TEXTS = 256
"""Texts of one request."""

Kind = Literal["query", "passage"]
_Input = Annotated[str, Field(min_length=1, max_length=MAX_QUESTION)]


class EmbeddingRequest(Strict):
    """``POST /v1/embeddings``. ``input_type`` is graft's own field: encoders treat queries and passages apart."""

    model: str = Field(max_length=200)
    input: Annotated[
        Union[_Input, Annotated[list[_Input], Field(min_length=1, max_length=MAX_TEXTS)]],
        BeforeValidator(no_token_ids),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int | None, Field(ge=1, le=2**31 - 1)] = None
    input_type: Kind | None = None
    user: Annotated[Text, NotFollowed()] = None

    def texts(self) -> list[str]:
        """The texts as they were sent. Raises `RequestError` (400) for one that is blank or holds a NUL character."""
        if isinstance(self.input, str):
            checked_text(self.input, "input")
            return [self.input]
        for number, text in enumerate(self.input):
            checked_text(text, f"input.{number}")
        return self.input


class Embedding(BaseModel):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: Whole
    embedding: Union[list[float], str]


class EmbeddingUsage(BaseModel):
    """Tokens of the texts; 0 with a note where the encoder does not tell."""

    prompt_tokens: Whole
    total_tokens: Whole


class EmbeddingAnswer(BaseModel):
    """The vectors in the order of the texts."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    graft: Notes = ABSENT


@runtime_checkable
class Gathers(Protocol):
    """An encoder that gathers the texts of all callers in flight into batches."""

    async def aencode(self, text: str, kind: Kind = "passage") -> np.ndarray:
        """Return the vector [dim] of one text."""
        ...


@runtime_checkable
class CountsTokens(Protocol):
    """An encoder that tells how many tokens it reads of each text."""

    def count_tokens(self, texts: list[str], kind: Kind = "passage") -> list[int]:
        """Return a number for each text."""
        ...


async def embed(encoder: Encoder, texts: list[str], kind: Kind) -> np.ndarray:
    """float32 [len(texts), dim], computed in a worker thread: in common batches with other callers if the encoder gathers them.

    A caller that is cancelled leaves the batches that have not begun; nobody else notices. Raises `ModelError` for a vector that is not
    finite, and what the encoder raises.
    """
    if isinstance(encoder, Gathers):
        vectors = np.stack(await asyncio.gather(*(encoder.aencode(text, kind) for text in texts)))
    else:
        vectors = await asyncio.to_thread(encoder.encode, texts, kind)
    if not np.isfinite(vectors).all():
        raise ModelError("the encoder gave a vector that is not finite; its weights may be damaged")
    return np.asarray(vectors, np.float32)


async def answer(encoder: Encoder, asked: EmbeddingRequest) -> dict[str, Any]:
    """The answer to ``asked``. Raises `RequestError` (400) for a length that the encoder does not give, and what `embed` raises."""
    texts, kind = asked.texts(), asked.input_type or "passage"
    if asked.dimensions is not None:
        given = await asyncio.to_thread(lambda: encoder.dim)  # it may have to load the model
        if asked.dimensions != given:
            raise RequestError(
                400, f"dimensions: '{asked.model}' gives {given}, not {asked.dimensions}; leave it out", code="unsupported_value"
            )
    vectors = await embed(encoder, texts, kind)
    coded: list[Any] = [_base64(vector) for vector in vectors] if asked.encoding_format == "base64" else vectors.tolist()
    tokens, notes = 0, not_followed(asked, "this server has no such setting")
    if isinstance(encoder, CountsTokens):
        tokens = sum(await asyncio.to_thread(encoder.count_tokens, texts, kind))
    else:
        notes.append("usage: this encoder does not tell how many tokens it read")
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": one} for index, one in enumerate(coded)],
        "model": asked.model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        **({"graft": {"notes": notes}} if notes else {}),
    }


def _base64(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
