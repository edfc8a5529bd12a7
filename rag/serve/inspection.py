"""What a pipeline is made of, read from its components' attributes: its models, its corpora and its retriever."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from rag.core.protocols import LanguageModel, Retriever

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline


def models_of(pipeline: Pipeline) -> list[LanguageModel]:
    """The language models that the pipeline's components hold, each once."""
    # Looked up on the class: isinstance against the protocol would read `name` and `window`, which may ask a server.
    return cast("list[LanguageModel]", _parts(pipeline, lambda part: hasattr(type(part), "agenerate") and hasattr(type(part), "astream")))


def corpora_of(pipeline: Pipeline) -> list[Any]:
    """The corpora that the pipeline's components hold, each once."""
    return _parts(pipeline, lambda part: hasattr(type(part), "verify") and hasattr(type(part), "__len__"))


def retriever_of(pipeline: Pipeline) -> Retriever | None:
    """The first sub-graph that some node calls as its retriever."""
    for stage in pipeline.plan.stages:
        for step in stage:
            for call in step.calls.values():
                if hasattr(call, "asearch"):
                    return cast("Retriever", call)
    return None


def _parts(pipeline: Pipeline, wanted: Callable[[object], bool]) -> list[Any]:
    found: dict[int, Any] = {}
    for node in pipeline.nodes.values():
        for part in _walk(node.component, set()):
            if wanted(part):
                found[id(part)] = part
    return list(found.values())


def _walk(part: object, seen: set[int]) -> Iterator[object]:
    if id(part) in seen or isinstance(part, (str, int, float, type(None))):
        return
    seen.add(id(part))
    yield part
    kept = getattr(part, "__dict__", {})  # not getattr: a property may load a model or open a file
    for name in inspect.signature(type(part)).parameters if kept else ():
        yield from _walk(kept.get(name), seen)
