"""What one server serves, and what its routes share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag.serve.adapters import SEPARATOR, Adapters
from rag.serve.errors import RequestError
from rag.serve.health import Health

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline
    from rag.core.protocols import Retriever
    from rag.serve.asking import Asking, Work


@dataclass(frozen=True)
class Service:
    """Pipelines by the names that callers use, and who searches for those who only search."""

    pipelines: Mapping[str, Pipeline]
    retriever: Retriever | None
    health: Health
    asking: Asking
    work: Work
    adapters: Adapters | None = None
    """What the pipelines may wear; None: nothing."""
    created: int = field(default_factory=lambda: int(time.time()))

    def pipeline(self, model: str) -> Pipeline:
        """The pipeline of that name, or of "pipeline:adapter". Raises `RequestError` (404) that names those there are."""
        name, worn, adapter = model.partition(SEPARATOR)
        found = self.pipelines.get(name)
        if found is not None and not worn:
            return found
        if found is not None and self.adapters is not None:
            return self.adapters.pipeline(name, adapter)
        raise RequestError(404, f"there is no model '{model}'; this server has: {', '.join(self.models())}", code="model_not_found")

    def models(self) -> list[str]:
        """All names that ``model`` may have: of the pipelines, and of each with an adapter on."""
        return [*self.pipelines, *(self.adapters.models() if self.adapters is not None else ())]
