"""``POST /v1/embeddings``: OpenAI's embeddings in front of sentence encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import Response

from rag.serve.asking import Work
from rag.serve.contract import documented
from rag.serve.embedding_types import EmbeddingAnswer, EmbeddingRequest, answer
from rag.serve.errors import RequestError
from rag.serve.limits import read_body
from rag.serve.openai_types import parse

if TYPE_CHECKING:
    from rag.core.protocols import Encoder


def routes(encoders: Mapping[str, Encoder], work: Work) -> APIRouter:
    """The router. ``encoders`` by the names that callers use."""
    contract = documented("Turn texts into vectors", takes=EmbeddingRequest, gives={200: EmbeddingAnswer}, errors=(404, 429, 500, 503, 504))
    router = APIRouter()
    router.post("/v1/embeddings", response_model=None, openapi_extra=contract)(_Embeddings(encoders, work).embed)
    return router


@dataclass(frozen=True)
class _Embeddings:
    encoders: Mapping[str, Encoder]
    work: Work

    async def embed(self, request: Request) -> Response:
        """A vector of length 1 for each text; see `rag.serve.embedding_types` for the limits."""
        asked = parse(EmbeddingRequest, await read_body(request))
        encoder = self.encoders.get(asked.model)
        if encoder is None:
            known = ", ".join(self.encoders) or "none"
            raise RequestError(404, f"there is no embedding model '{asked.model}'; this server has: {known}", code="model_not_found")
        return await self.work.done(request, answer(encoder, asked))
