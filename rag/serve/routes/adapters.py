"""``/v1/adapters``: what the pipelines may wear, loading and unloading it on a vLLM server at run time, and composing new ones."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from generators.models.rack import AdapterInUse
from rag.core.errors import AdapterError, InputError, ModelRefused
from rag.serve.adapters import Adapters
from rag.serve.composing import Compose, ComposeRequest
from rag.serve.contract import documented
from rag.serve.errors import RequestError, to_request_error
from rag.serve.job_answers import JobState
from rag.serve.jobs import Jobs
from rag.serve.limits import read_body
from rag.serve.openai_answers import AdapterCard, AdapterList
from rag.serve.openai_types import parse

if TYPE_CHECKING:
    from adapters.registry.entry import Entry


def routes(adapters: Adapters, jobs: Jobs) -> APIRouter:
    """The router."""
    router, group = APIRouter(), _Adapters(adapters, jobs)
    listed = documented("List adapters", gives={200: AdapterList})
    router.get("/v1/adapters", response_model=None, openapi_extra=listed)(group.all)
    composed = documented("Compose an adapter", takes=ComposeRequest, gives={202: JobState}, errors=(409, 429, 503))
    router.post("/v1/adapters/compose", response_model=None, openapi_extra=composed)(group.compose)
    for act, work in (("load", group.load), ("unload", group.unload)):
        changed = documented(f"{act.capitalize()} an adapter", gives={200: AdapterCard}, errors=(400, 404, 409, 500, 503))
        router.post(f"/v1/adapters/{{name}}/{act}", response_model=None, openapi_extra=changed)(work)
    return router


@dataclass(frozen=True)
class _Adapters:
    adapters: Adapters
    jobs: Jobs

    async def all(self) -> Response:
        """The adapters by name, the models under which each can be asked, and whether it is loaded now."""
        entries, models = await asyncio.to_thread(lambda: (self.adapters.entries(), self.adapters.models()))
        return JSONResponse({"object": "list", "data": [self._described(entry, models) for entry in entries]})

    async def load(self, name: str) -> Response:
        """Have the model's server load it now, not with the first question."""
        return await self._changed(name, self.adapters.load(name))

    async def unload(self, name: str) -> Response:
        """Have the model's server forget it; 409 while an answer is being written with it."""
        return await self._changed(name, self.adapters.unload(name))

    async def compose(self, request: Request) -> Response:
        """202 with the job that searches a composition by the examples (LoRAHub) and adds it as an adapter."""
        self.jobs.check_room()
        asked = parse(ComposeRequest, await read_body(request))
        try:
            work = await asyncio.to_thread(Compose.of, self.adapters.registry, asked)
        except InputError as error:
            raise to_request_error(error) from error
        job = self.jobs.start("compose", work, unit="adapters", total=1)
        return JSONResponse(job.describe(), 202, {"Location": f"/v1/jobs/{job.id}"})

    async def _changed(self, name: str, work: Any) -> Response:
        entries, models = await asyncio.to_thread(lambda: (self.adapters.entries(), self.adapters.models()))
        entry = next((entry for entry in entries if entry.name == name), None)
        if entry is None:
            work.close()
            known = ", ".join(entry.name for entry in entries) or "none"
            raise RequestError(404, f"there is no adapter '{name}'; this server has: {known}", code="not_found")
        try:
            await work
        except AdapterInUse as error:
            raise RequestError(409, str(error), code="adapter_in_use", retry_after=1) from error
        except (AdapterError, InputError, ModelRefused) as error:  # the reason, but not where on this machine
            raise RequestError(400, str(error).replace(f"{self.adapters.registry.folder}/", ""), code="adapter_refused") from error
        except Exception as error:
            raise to_request_error(error) from error
        return JSONResponse(self._described(entry, models))

    def _described(self, entry: Entry, models: list[str]) -> dict[str, Any]:
        return {
            "id": entry.name,
            "object": "adapter",
            "method": entry.method,
            "base": entry.base,
            "bytes": entry.bytes,
            "metrics": dict(entry.metrics),
            "loaded": self.adapters.loaded(entry.name),
            "models": [model for model in models if model.endswith(f":{entry.name}")],
            "problem": entry.problem,
        }
