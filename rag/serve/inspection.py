"""What a pipeline is made of, read from its components' attributes: its models, its corpora, its stores and its retriever."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rag.core.protocols import Encoder, LanguageModel, Retriever

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline


def models_of(pipeline: Pipeline) -> list[LanguageModel]:
    """The language models that the pipeline's components hold, each once."""
    # Looked up on the class: isinstance against the protocol would read `name` and `window`, which may ask a server.
    return cast("list[LanguageModel]", _parts(pipeline, lambda part: hasattr(type(part), "agenerate") and hasattr(type(part), "astream")))


def corpora_of(pipeline: Pipeline) -> list[Any]:
    """The corpora that the pipeline's components hold, each once."""
    return _parts(pipeline, lambda part: hasattr(type(part), "verify") and hasattr(type(part), "__len__") and not _holds_contexts(part))


def stores_of(pipelines: Iterable[Pipeline]) -> list[Any]:
    """The stores of contexts on this machine that the pipelines' components read: folders, and open stores."""
    parts = (part for pipeline in pipelines for part in _parts(pipeline, lambda part: "store" in getattr(part, "__dict__", {})))
    return [part.store for part in parts if (isinstance(part.store, str) and part.store) or _holds_contexts(part.store)]


def encoders_of(pipelines: Iterable[Pipeline]) -> dict[str, Encoder]:
    """The encoders of all corpora that the pipelines search, by the names of their models; nothing is loaded yet."""
    found: dict[str, Encoder] = {}
    for pipeline in pipelines:
        for corpus in corpora_of(pipeline):
            encoder = corpus.load_encoder() if hasattr(type(corpus), "load_encoder") else None
            if encoder is not None:
                name = str(getattr(encoder, "model", type(encoder).__name__))
                found.setdefault(Path(name).name if Path(name).is_dir() else name, encoder)
    return found


def reranks_of(pipelines: Iterable[Pipeline]) -> list[Any]:
    """The cross-encoders that the pipelines hold, each once."""
    parts = (_parts(pipeline, lambda part: hasattr(part, "max_pairs") and hasattr(type(part), "run")) for pipeline in pipelines)
    return list({id(part): part for some in parts for part in some}.values())


def retriever_of(pipeline: Pipeline) -> Retriever | None:
    """The first sub-graph that some node calls as its retriever."""
    for stage in pipeline.plan.stages:
        for step in stage:
            for call in step.calls.values():
                if hasattr(call, "asearch"):
                    return cast("Retriever", call)
    return None


def _holds_contexts(part: object) -> bool:
    return hasattr(type(part), "keep") and hasattr(type(part), "hashes")  # of one on another machine nobody knows the hashes


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
