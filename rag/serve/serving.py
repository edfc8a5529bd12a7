"""What depends on the served pipelines, made as a whole, so that it can be replaced as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import APIRouter

from rag.core.errors import ConfigError, InputError
from rag.core.pipeline import Pipeline
from rag.serve.adapters import SEPARATOR, Adapters, Slots
from rag.serve.asking import Asking, Work
from rag.serve.breaker import Breaker
from rag.serve.contexts import Stores
from rag.serve.contexts import routes as context_routes
from rag.serve.health import Health
from rag.serve.inspection import corpora_of, encoders_of, reranks_of, retriever_of, stores_of
from rag.serve.rerank_types import rankers_of
from rag.serve.routes import adapters as adapter_routes
from rag.serve.routes import answers, chat, completions, embeddings, pipelines, rerank, retrieve, state
from rag.serve.service import Service

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from adapters.registry import Registry
    from rag.core.protocols import Retriever
    from rag.serve.admission import Admission
    from rag.serve.engine_state import Engine
    from rag.serve.jobs import Jobs
    from rag.serve.settings import Limits, Uploads


@dataclass(frozen=True)
class Kept:
    """What stays when the pipelines are replaced: the queues and their limits, jobs, uploads, the model server and
    the adapters there are."""

    limits: Limits
    admission: Admission
    work: Work
    jobs: Jobs
    uploads: Uploads | None
    engine: Engine | None
    registry: Registry | None
    slots: Slots

    def service(self, given: Pipeline | Mapping[str, Pipeline], retriever: Retriever | None) -> Service:
        """The service of new pipelines; nothing is loaded yet.

        Raises `InputError` for no pipeline or a name with ":", and `GraphError` for one that is not complete.
        """
        named = _named(given)
        asking = Asking(self.admission, Breaker, self.limits.seconds, self.limits.drain)
        worn = Adapters(named, self.registry, self.slots) if self.registry is not None else None
        return Service(named, retriever or retriever_of(next(iter(named.values()))), Health(named, self.engine), asking, self.work, worn)

    def routes(self, service: Service) -> list[BaseRoute]:
        """The routes that ask it. A request that is on its way keeps the route, and so the service, that it came to."""
        encoders = encoders_of(service.pipelines.values())
        router = APIRouter()
        for group in (chat, completions, answers, retrieve, state, pipelines):
            router.include_router(group.routes(service))
        router.include_router(embeddings.routes(encoders, self.work))
        router.include_router(rerank.routes(rankers_of(reranks_of(service.pipelines.values()), encoders), self.work))
        router.include_router(context_routes(Stores(stores_of(service.pipelines.values())), self.work.admission))
        if service.adapters is not None:
            router.include_router(adapter_routes.routes(service.adapters, self.jobs))
        return router.routes

    def check_replacement(self, service: Service) -> None:
        """Raises `ConfigError` if it searches another corpus than the one that uploads are written to."""
        if self.uploads is None:
            return
        ours = Path(self.uploads.corpus.path).resolve()
        searched = [getattr(corpus, "path", None) for pipeline in service.pipelines.values() for corpus in corpora_of(pipeline)]
        if [path for path in searched if path is None or Path(path).resolve() != ours] or not searched:
            named = ", ".join(map(str, searched)) or "none"
            raise ConfigError(f"uploads are written to {ours}, and the new pipeline searches {named}; restart the server to change that")


def _named(given: Pipeline | Mapping[str, Pipeline]) -> dict[str, Pipeline]:
    pipelines = dict(given) if isinstance(given, Mapping) else {"graft": given}
    if not pipelines:
        raise InputError("there is no pipeline to serve")
    for name, one in pipelines.items():
        if not name or SEPARATOR in name:
            raise InputError(f"a pipeline is served under a name without '{SEPARATOR}', not {name!r}")
        _ = one.plan  # an incomplete graph fails now, not at the first question
    return pipelines
