"""``GET /v1/models``, and three questions of whoever watches the server: ``/livez`` (does the process answer?), ``/readyz`` (can it answer
questions now?) and ``/healthz``, which is the same as the second."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from rag.serve.contract import documented
from rag.serve.errors import RequestError
from rag.serve.openai_answers import Alive, HealthAnswer, ModelCard, ModelList
from rag.serve.service import Service


def routes(service: Service) -> APIRouter:
    """The router."""
    router, state = APIRouter(), _State(service)
    health = {200: HealthAnswer, 503: HealthAnswer}
    listed, one = documented("List models", gives={200: ModelList}), documented("Show a model", gives={200: ModelCard}, errors=(404,))
    router.get("/v1/models", response_model=None, openapi_extra=listed)(state.models)
    router.get("/v1/models/{name}", response_model=None, openapi_extra=one)(state.model)
    for path in ("/healthz", "/readyz"):
        router.get(path, response_model=None, openapi_extra=documented("Tell health", gives=health, open=True))(state.ready)
    alive = documented("Tell that the process answers", gives={200: Alive}, open=True)
    router.get("/livez", response_model=None, openapi_extra=alive)(state.live)
    return router


@dataclass(frozen=True)
class _State:
    service: Service

    async def models(self) -> Response:
        """The names that ``model`` may have."""
        names = await asyncio.to_thread(self.service.models)
        return JSONResponse({"object": "list", "data": [self._model(name) for name in names]})

    async def model(self, name: str) -> Response:
        """One of them; 404 for another name."""
        names = await asyncio.to_thread(self.service.models)
        if name not in names:
            raise RequestError(404, f"there is no model '{name}'; this server has: {', '.join(names)}", code="model_not_found")
        return JSONResponse(self._model(name))

    def _model(self, name: str) -> dict[str, Any]:
        return {"id": name, "object": "model", "created": self.service.created, "owned_by": "graft"}

    async def live(self) -> Response:
        """200, whatever became of models and corpora: who restarts processes asks here."""
        return JSONResponse({"status": "alive"})

    async def ready(self) -> Response:
        """200 if every model answers and every corpus opens, else 503."""
        health = await self.service.health.check()
        return JSONResponse(health, 200 if health["status"] == "ok" else 503)
