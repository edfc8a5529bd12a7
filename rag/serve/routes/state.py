"""``GET /v1/models`` and ``GET /healthz``: what is served, and whether it can answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from rag.serve.errors import RequestError
from rag.serve.service import Service


def routes(service: Service) -> APIRouter:
    """The router."""
    router, state = APIRouter(), _State(service)
    router.get("/v1/models", response_model=None)(state.models)
    router.get("/v1/models/{name}", response_model=None)(state.model)
    router.get("/healthz", response_model=None)(state.healthz)
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

    async def healthz(self) -> Response:
        """200 if every model answers and every corpus opens, else 503."""
        health = await self.service.health.check()
        return JSONResponse(health, 200 if health["status"] == "ok" else 503)
