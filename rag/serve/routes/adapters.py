"""``/v1/adapters``: what the pipelines may wear, and loading and unloading it on a vLLM server at run time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from generators.models.rack import AdapterInUse
from rag.core.errors import AdapterError, InputError, ModelRefused
from rag.serve.adapters import Adapters
from rag.serve.errors import RequestError, to_request_error

if TYPE_CHECKING:
    from adapters.registry.entry import Entry


def routes(adapters: Adapters) -> APIRouter:
    """The router."""
    router, group = APIRouter(), _Adapters(adapters)
    router.get("/v1/adapters", response_model=None)(group.all)
    router.post("/v1/adapters/{name}/load", response_model=None)(group.load)
    router.post("/v1/adapters/{name}/unload", response_model=None)(group.unload)
    return router


@dataclass(frozen=True)
class _Adapters:
    adapters: Adapters

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

    async def _changed(self, name: str, work: Any) -> Response:
        known = {entry.name for entry in await asyncio.to_thread(self.adapters.entries)}
        if name not in known:
            work.close()
            raise RequestError(
                404, f"there is no adapter '{name}'; this server has: {', '.join(sorted(known)) or 'none'}", code="not_found"
            )
        try:
            await work
        except AdapterInUse as error:
            raise RequestError(409, str(error), code="adapter_in_use", retry_after=1) from error
        except (AdapterError, InputError, ModelRefused) as error:  # the reason, but not where on this machine
            raise RequestError(400, str(error).replace(f"{self.adapters.registry.folder}/", ""), code="adapter_refused") from error
        except Exception as error:
            raise to_request_error(error) from error
        entry = next(entry for entry in await asyncio.to_thread(self.adapters.entries) if entry.name == name)
        return JSONResponse(self._described(entry, await asyncio.to_thread(self.adapters.models)))

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
