"""Reranking in the forms of Cohere's and Jina's clients: the requests, the answer, and who scores.

Sources: https://docs.cohere.com/reference/rerank (v2), https://docs.cohere.com/v1/reference/rerank, https://jina.ai/reranker, and the types
of Cohere's Python client. Uncertain, because the two differ or their pages do not say:

- ``/v1/rerank`` without ``return_documents``: Jina gives the documents back, Cohere does not. They are given; Cohere's client takes them.
- Jina's ``usage``: some clients know ``total_tokens`` alone, copies of its format ``prompt_tokens`` and ``completion_tokens`` too. The
  first is given. Cohere's ``meta.billed_units`` is left out: nothing is billed.
- Cohere's scores lie in [0, 1]. Ours are the ranker's own: larger is better, and only comparable within one request.
- Cohere's v1 takes objects with other fields than ``text`` (``rank_fields``), Jina images. Both are refused.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Union

import numpy as np
from pydantic import BaseModel, Field

from rag.core.errors import ModelError
from rag.core.types import Hit, Passage
from rag.serve.embedding_types import embed
from rag.serve.errors import RequestError
from rag.serve.openai_answers import ABSENT, Notes, Whole
from rag.serve.openai_types import MAX_QUESTION, NotFollowed, Refused, Strict, checked_text, not_followed, refuse_unsupported

if TYPE_CHECKING:
    from rag.core.protocols import Encoder
    from retrievers.rerank import Rerank

MAX_DOCUMENTS = 1_000
"""Documents of one request."""

_TextOf = Annotated[str, Field(max_length=MAX_QUESTION)]
_TopN = Annotated[int | None, Field(ge=1, le=MAX_DOCUMENTS)]
_Cut = Annotated[int | None, Field(ge=1, le=2**31 - 1), NotFollowed()]


class TextDocument(Strict):
    """A document as an object."""

    text: _TextOf


class RerankRequestV1(Strict):
    """``POST /v1/rerank``, in the form of Jina's clients and of Cohere's first. Without ``model`` the first one ranks."""

    model: Annotated[str | None, Field(max_length=200)] = None
    query: str
    documents: Annotated[list[Union[_TextOf, TextDocument]], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: _TopN = None
    return_documents: bool | None = None
    rank_fields: Annotated[list[str] | None, Refused(["text"])] = None
    max_chunks_per_doc: _Cut = None
    max_tokens_per_doc: _Cut = None


class RerankRequestV2(Strict):
    """``POST /v2/rerank``, in the form of Cohere's second client."""

    model: str = Field(max_length=200)
    query: str
    documents: Annotated[list[_TextOf], Field(min_length=1, max_length=MAX_DOCUMENTS)]
    top_n: _TopN = None
    max_tokens_per_doc: _Cut = None
    priority: Annotated[int | None, Field(ge=0, le=999), NotFollowed()] = None


class RankedText(BaseModel):
    """A document, given back."""

    text: str


class Ranked(BaseModel):
    """A document's place in the request, from 0, and its score."""

    index: Whole
    relevance_score: float
    document: RankedText = ABSENT


class ApiVersion(BaseModel):
    """Cohere's form of a version."""

    version: Literal["1", "2"]


class RerankMeta(BaseModel):
    """Cohere's part of the answer."""

    api_version: ApiVersion
    warnings: list[str] = ABSENT


class RerankUsage(BaseModel):
    """Jina's part of the answer to ``/v1/rerank``: always 0, with a note, for no ranker tells how many tokens it read."""

    total_tokens: Whole


class RerankAnswer(BaseModel):
    """The documents, best first."""

    id: str
    model: str
    results: list[Ranked]
    meta: RerankMeta
    usage: RerankUsage = ABSENT
    graft: Notes = ABSENT


class Ranker(Protocol):
    """Says how well each document answers a query."""

    async def score(self, query: str, documents: list[str]) -> Sequence[float]:
        """Return a score for each document: larger is better."""
        ...


class CrossEncoderRanker:
    """Scores by the cross-encoder of ``rerank``, whose model stays loaded once."""

    def __init__(self, rerank: Rerank) -> None:
        self._rerank = copy.copy(rerank)  # the same model and the same batches, only that no document is cut off
        self._rerank.k = self._rerank.max_pairs = MAX_DOCUMENTS

    async def score(self, query: str, documents: list[str]) -> Sequence[float]:
        """The model's own scores. Raises what `Rerank.run` raises."""
        hits = [Hit(Passage(str(index), text), 0.0, index + 1) for index, text in enumerate(documents)]
        scored = {int(hit.passage.id): hit.score for hit in await self._rerank.run(query, hits)}
        return [scored[index] for index in range(len(documents))]


class CosineRanker:
    """Scores by the cosine of the vectors of query and document: for a server that has no cross-encoder."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    async def score(self, query: str, documents: list[str]) -> Sequence[float]:
        """Numbers in [-1, 1]. Raises what the encoder raises."""
        (asked,) = await embed(self._encoder, [query], "query")
        scores: list[float] = (await embed(self._encoder, documents, "passage") @ asked).tolist()
        return scores


def rankers_of(reranks: Iterable[Rerank], encoders: Mapping[str, Encoder]) -> dict[str, Ranker]:
    """Rankers by names that say what scores: cross-encoders by their models' names, encoders as "cosine:NAME"; the cross-encoders first."""
    rankers: dict[str, Ranker] = {}
    for rerank in reranks:
        folder = Path(rerank.model).expanduser()
        rankers[folder.resolve().name if folder.is_dir() else rerank.model] = CrossEncoderRanker(rerank)
    return rankers | {f"cosine:{name}": CosineRanker(encoder) for name, encoder in encoders.items()}


async def answer(model: str, ranker: Ranker, asked: RerankRequestV1 | RerankRequestV2) -> dict[str, Any]:
    """The answer to ``asked``. Raises `RequestError` (400) for a text that cannot be ranked, and what the ranker raises."""
    refuse_unsupported(asked)
    query = checked_text(asked.query, "query")
    documents = [one if isinstance(one, str) else one.text for one in asked.documents]
    for index, text in enumerate(documents):
        if "\0" in text:
            raise RequestError(400, f"documents.{index} holds a NUL character", code="invalid_value")
    scores = await ranker.score(query, documents)
    if len(scores) != len(documents) or not np.isfinite(scores).all():
        raise ModelError(f"the ranker '{model}' gave {len(scores)} scores for {len(documents)} documents, or one that is not finite")
    best = sorted(range(len(documents)), key=lambda index: -scores[index])[: asked.top_n]
    results: list[dict[str, Any]] = [{"index": index, "relevance_score": float(scores[index])} for index in best]
    warnings = not_followed(asked, "this server has no such setting")
    meta = {"warnings": warnings} if warnings else {}
    body = {"id": str(uuid.uuid4()), "model": model, "results": results}
    if isinstance(asked, RerankRequestV2):
        return {**body, "meta": {"api_version": {"version": "2"}, **meta}}
    if asked.return_documents is not False:
        for result in results:
            result["document"] = {"text": documents[result["index"]]}
    notes = {"notes": ["usage: this ranker does not tell how many tokens it read"]}
    return {**body, "meta": {"api_version": {"version": "1"}, **meta}, "usage": {"total_tokens": 0}, "graft": notes}
