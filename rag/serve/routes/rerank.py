"""``POST /v1/rerank`` and ``POST /v2/rerank``: the forms of Jina's and Cohere's clients in front of rankers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response

from rag.serve.asking import Work
from rag.serve.contract import documented
from rag.serve.errors import RequestError
from rag.serve.limits import read_body
from rag.serve.openai_types import parse
from rag.serve.rerank_types import Ranker, RerankAnswer, RerankRequestV1, RerankRequestV2, answer


def routes(rankers: Mapping[str, Ranker], work: Work) -> APIRouter:
    """The router. ``rankers`` by the names that callers use."""
    router, rerank = APIRouter(), _Rerank(rankers, work)
    errors = (404, 429, 500, 503, 504)
    v1 = documented("Rank documents (Jina, Cohere v1)", takes=RerankRequestV1, gives={200: RerankAnswer}, errors=errors)
    v2 = documented("Rank documents (Cohere v2)", takes=RerankRequestV2, gives={200: RerankAnswer}, errors=errors)
    router.post("/v1/rerank", response_model=None, openapi_extra=v1)(rerank.v1)
    router.post("/v2/rerank", response_model=None, openapi_extra=v2)(rerank.v2)
    return router


@dataclass(frozen=True)
class _Rerank:
    rankers: Mapping[str, Ranker]
    work: Work

    async def v1(self, request: Request) -> Response:
        """Best first, with the documents unless ``return_documents`` is false."""
        return await self._rank(request, parse(RerankRequestV1, await read_body(request)))

    async def v2(self, request: Request) -> Response:
        """Best first."""
        return await self._rank(request, parse(RerankRequestV2, await read_body(request)))

    async def _rank(self, request: Request, asked: RerankRequestV1 | RerankRequestV2) -> Response:
        model = next(iter(self.rankers), "") if asked.model is None else asked.model
        ranker = self.rankers.get(model)
        if ranker is None:
            known = ", ".join(self.rankers) or "none"
            raise RequestError(404, f"there is no reranking model '{model}'; this server has: {known}", code="model_not_found")
        return await self.work.done(request, answer(model, ranker, asked))
