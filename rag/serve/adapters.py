"""Adapters of a registry behind the pipelines of a server: each pair is a model of its own, "pipeline:adapter"."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag.core.errors import AdapterError, InputError
from rag.serve.errors import RequestError
from rag.serve.inspection import models_of

if TYPE_CHECKING:
    from adapters.registry import Registry
    from adapters.registry.entry import Entry
    from generators.models.rack import Rack
    from rag.core.pipeline import Pipeline

SEPARATOR = ":"


@dataclass(frozen=True)
class Slots:
    """What a vLLM server allows: its ``--max-loras``, ``--max-lora-rank`` and ``--lora-target-modules``."""

    number: int = 1
    max_rank: int = 16
    targets: Sequence[str] | None = None


class Adapters:
    """The adapters in ``registry``, worn by the models of ``pipelines``.

    A model on a vLLM server gets them from a `Rack`, one for each server; a model in process puts them on itself. Models that wear none
    (behind an OpenAI-compatible address) are left as they are; a pipeline with no other offers no adapters.
    """

    def __init__(self, pipelines: Mapping[str, Pipeline], registry: Registry, slots: Slots = Slots()) -> None:
        self.registry = registry
        self._pipelines = pipelines
        self._slots = slots
        self._racks: dict[str, Rack] = {}
        self._dressed: dict[tuple[str, str], Pipeline] = {}

    def entries(self) -> list[Entry]:
        """What is in the registry, by name."""
        return self.registry.entries()

    def models(self) -> list[str]:
        """The names under which adapters can be asked."""
        names = [entry.name for entry in self.entries() if entry.problem is None]
        return [f"{pipeline}{SEPARATOR}{name}" for pipeline in self._pipelines if self._offers(pipeline) for name in names]

    def pipeline(self, pipeline: str, adapter: str) -> Pipeline:
        """The pipeline with the adapter on. Raises `RequestError` (404) for an adapter that is not there."""
        try:
            self.registry.path(adapter)
        except (AdapterError, InputError):
            known = ", ".join(entry.name for entry in self.entries()) or "none"
            raise RequestError(404, f"there is no adapter '{adapter}'; this server has: {known}", code="model_not_found") from None
        if not self._offers(pipeline):
            raise RequestError(404, f"the model of '{pipeline}' wears no adapters", code="model_not_found")
        key = pipeline, adapter
        if key not in self._dressed:
            self._dressed[key] = self._pipelines[pipeline].replaced(lambda part: self._wearing(part, adapter))
        return self._dressed[key]

    def loaded(self, adapter: str) -> bool | None:
        """Whether a vLLM server has it loaded now, by one of our racks; None if no model is on a server."""
        racks = list(self._all_racks())
        return any(adapter in rack.loaded for rack in racks) if racks else None

    async def load(self, adapter: str) -> None:
        """Have every server load it now, not with the first question. Raises `AdapterError` and its kinds with the reason."""
        self.registry.path(adapter)
        for rack in self._all_racks():
            async with rack.lease(adapter):
                pass

    async def unload(self, adapter: str) -> bool:
        """Have every server forget it; whether one had it. Raises `AdapterInUse` while an answer is being written with it."""
        self.registry.path(adapter)
        return any([await rack.drop(adapter) for rack in self._all_racks()])

    def _offers(self, pipeline: str) -> bool:
        return any(hasattr(type(model), "with_adapter") for model in models_of(self._pipelines[pipeline]))

    def _wearing(self, part: Any, adapter: str) -> Any:
        if not hasattr(type(part), "with_adapter"):
            return part
        return self._rack(part).wearing(adapter) if self._on_server(part) else part.with_adapter(str(self.registry.path(adapter)))

    def _all_racks(self) -> Iterator[Rack]:
        for name in self._pipelines:
            for model in models_of(self._pipelines[name]):
                if self._on_server(model):
                    self._rack(model)
        yield from self._racks.values()

    def _rack(self, model: Any) -> Rack:
        if model.url not in self._racks:
            from generators.models.rack import Rack

            self._racks[model.url] = Rack(model, self._slots.number, self._slots.max_rank, self._slots.targets, _Folders(self.registry))
        return self._racks[model.url]

    @staticmethod
    def _on_server(model: Any) -> bool:
        return hasattr(type(model), "aload_adapter")


class _Folders(Mapping[str, Path]):
    """The registry's folders by name, as they are at the moment in which they are asked for."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getitem__(self, name: str) -> Path:
        try:
            return self._registry.path(name)
        except (AdapterError, InputError):
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return (entry.name for entry in self._registry.entries())

    def __len__(self) -> int:
        return len(self._registry.entries())
