"""``GET /metrics``: what Prometheus reads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from rag.serve.contract import documented
from rag.serve.observe.metrics import Metrics


def routes(metrics: Metrics) -> APIRouter:
    """The router."""
    router = APIRouter()
    contract = documented("Show metrics", gives={200: {"text/plain": str}})
    router.get("/metrics", response_model=None, openapi_extra=contract)(_Metrics(metrics).show)
    return router


@dataclass(frozen=True)
class _Metrics:
    metrics: Metrics

    async def show(self) -> Response:
        """The text format, written in a thread."""
        return Response(await asyncio.to_thread(self.metrics.text), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
