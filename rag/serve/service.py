"""What one server serves, and what its routes share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag.serve.errors import RequestError
from rag.serve.health import Health

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline
    from rag.core.protocols import Retriever
    from rag.serve.asking import Asking


@dataclass(frozen=True)
class Service:
    """Pipelines by the names that callers use, and who searches for those who only search."""

    pipelines: Mapping[str, Pipeline]
    retriever: Retriever | None
    health: Health
    asking: Asking
    created: int = field(default_factory=lambda: int(time.time()))

    def pipeline(self, model: str) -> Pipeline:
        """The pipeline of that name. Raises `RequestError` (404) that names those there are."""
        found = self.pipelines.get(model)
        if found is None:
            known = ", ".join(self.pipelines)
            raise RequestError(404, f"there is no model '{model}'; this server has: {known}", code="model_not_found")
        return found
