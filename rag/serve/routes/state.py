"""``GET /v1/models`` and ``GET /healthz``: what is served, and whether it can answer."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from rag.serve.service import Service


def routes(service: Service) -> APIRouter:
    """The router."""
    router, state = APIRouter(), _State(service)
    router.get("/v1/models", response_model=None)(state.models)
    router.get("/healthz", response_model=None)(state.healthz)
    return router


@dataclass(frozen=True)
class _State:
    service: Service

    async def models(self) -> Response:
        """The names that ``model`` may have."""
        created = self.service.created
        data = [{"id": name, "object": "model", "created": created, "owned_by": "graft"} for name in self.service.pipelines]
        return JSONResponse({"object": "list", "data": data})

    async def healthz(self) -> Response:
        """200 if every model answers and every corpus opens, else 503."""
        health = await self.service.health.check()
        return JSONResponse(health, 200 if health["status"] == "ok" else 503)
