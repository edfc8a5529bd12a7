"""``POST /v1/retrieve``: passages only, no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from rag.core.protocols import Retriever
from rag.serve.contract import documented
from rag.serve.describe import describe_hit
from rag.serve.errors import RequestError
from rag.serve.limits import read_body
from rag.serve.openai_answers import RetrieveAnswer
from rag.serve.openai_types import RetrieveRequest, checked_text, parse
from rag.serve.service import Service


def routes(service: Service) -> APIRouter:
    """The router."""
    contract = documented("Find passages", takes=RetrieveRequest, gives={200: RetrieveAnswer}, errors=(404, 429, 500, 503, 504))
    router = APIRouter()
    router.post("/v1/retrieve", response_model=None, openapi_extra=contract)(_Retrieve(service).search)
    return router


@dataclass(frozen=True)
class _Retrieve:
    service: Service

    async def search(self, request: Request) -> Response:
        """At most ``k`` hits, best first; never more than the retriever itself gives."""
        asked = parse(RetrieveRequest, await read_body(request))
        query = checked_text(asked.query, "query")
        if self.service.retriever is None:
            raise RequestError(404, "this pipeline has no retriever", code="no_retriever")
        return await self.service.work.done(request, _found(self.service.retriever, query, asked))


async def _found(retriever: Retriever, query: str, asked: RetrieveRequest) -> dict[str, Any]:
    hits = await retriever.asearch(query, k=asked.k, filter=asked.filter)
    return {"object": "list", "hits": [describe_hit(hit, number) for number, hit in enumerate(hits, 1)]}
