"""``/v1/pipelines``: what the served pipelines look like, and what an edited one would look like."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field

from rag.core.draw import mermaid, svg
from rag.core.errors import ConfigError, GraftError, GraphError
from rag.core.pipeline import Pipeline
from rag.serve.contract import documented
from rag.serve.errors import RequestError, to_request_error
from rag.serve.limits import read_body
from rag.serve.openai_answers import Drawing, PipelineList
from rag.serve.openai_types import Strict, parse
from rag.serve.service import Service

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_YAML = 100_000


class DrawRequest(Strict):
    """``POST /v1/pipelines/draw``: a pipeline as YAML."""

    yaml: str = Field(max_length=MAX_YAML)


def routes(service: Service) -> APIRouter:
    """The router. Drawing builds the components that a YAML names, which may open files: it has no row in the table of scopes, and so
    needs "admin"."""
    router, group = APIRouter(), _Pipelines(service.pipelines, asyncio.Lock())
    listed = documented("List pipelines with their graphs", gives={200: PipelineList})
    drawn = documented("Draw a pipeline", takes=DrawRequest, gives={200: Drawing}, errors=(500,))
    router.get("/v1/pipelines", response_model=None, openapi_extra=listed)(group.all)
    router.post("/v1/pipelines/draw", response_model=None, openapi_extra=drawn)(group.draw)
    return router


@dataclass(frozen=True)
class _Pipelines:
    pipelines: Mapping[str, Pipeline]
    turn: asyncio.Lock
    """One is built at a time."""

    async def all(self, request: Request) -> Response:
        """Each with its nodes, edges and pictures, and for who may see where things are (a key for "admin") its YAML."""
        scopes = request.scope.get("state", {}).get("scopes")
        cards = await asyncio.to_thread(lambda: [_card(name, one, scopes) for name, one in self.pipelines.items()])
        return JSONResponse({"object": "list", "data": cards})

    async def draw(self, request: Request) -> Response:
        """The drawing of a YAML; nothing is kept of it. 400 says where it is wrong."""
        asked = parse(DrawRequest, await read_body(request))
        async with self.turn:
            return JSONResponse(await asyncio.to_thread(_drawing, asked.yaml))


def _card(name: str, pipeline: Pipeline, scopes: Sequence[str] | None) -> dict[str, Any]:
    text, note = None, None
    try:
        text = pipeline.to_yaml()
    except ConfigError as error:
        note = f"there is no YAML of this pipeline: {error}"
    if scopes is not None and "admin" not in scopes:  # it names paths and addresses of this machine
        text, note = None, "the YAML is shown to keys with the scope 'admin'"
    return {"id": name, "object": "pipeline", **_graph(pipeline), "yaml": text, "note": note}


def _drawing(text: str) -> dict[str, Any]:
    try:
        pipeline = Pipeline.from_yaml(text + "\n")  # with its line end, a name of a file is text too
    except GraftError as error:
        raise RequestError(400, f"yaml: {error}", code="invalid_yaml") from error
    except Exception as error:
        raise to_request_error(error) from error
    problem = None
    try:
        _ = pipeline.plan
    except GraphError as error:
        problem = str(error)
    return {"object": "drawing", **_graph(pipeline), "problem": problem}


def _graph(pipeline: Pipeline) -> dict[str, Any]:
    nodes = [
        {"name": node.name, "type": getattr(node.component, "__name__", type(node.component).__name__)} for node in pipeline.nodes.values()
    ]
    edges = [
        {"source": edge.source, "output": edge.output, "target": edge.target, "port": edge.port, "call": edge.call, "loop": edge.loop}
        for edge in pipeline.edges
    ]
    return {"nodes": nodes, "edges": edges, "mermaid": mermaid(pipeline), "svg": svg(pipeline)}
