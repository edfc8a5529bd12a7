"""The passages of a data set as the corpus that pipelines search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rag.core.errors import ConfigError, InputError
from rag.core.pipeline import Pipeline
from rag.evaluate.identity import components
from rag.evaluate.types import DataSet
from retrievers.corpus import Corpus
from retrievers.corpus.store import DATABASE
from retrievers.dense import Dense

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retrievers.corpus.writer import Progress


def missing_corpora(pipeline: Pipeline) -> list[str]:
    """The paths of ``pipeline``'s corpora that are not there."""
    return [str(part.path) for part in components(pipeline) if isinstance(part, Corpus) and not (part.folder / DATABASE).exists()]


def needs_vectors(pipelines: Sequence[Pipeline]) -> bool:
    """Whether one of them searches by vectors."""
    return any(isinstance(part, Dense) for pipeline in pipelines for part in components(pipeline))


def pointed_to(pipeline: Pipeline, folder: Path, *, only_missing: bool) -> Pipeline:
    """A copy of ``pipeline`` whose corpora lie at ``folder``: all of them, or those that are not there."""
    paths = set(missing_corpora(pipeline)) if only_missing else {str(p.path) for p in components(pipeline) if isinstance(p, Corpus)}
    return Pipeline.from_yaml(yaml.safe_dump(_repointed(yaml.safe_load(pipeline.to_yaml()), paths, str(folder)), sort_keys=False))


def index_passages(data: DataSet, folder: Path, *, encoder: str | None, progress: Progress | None = None) -> bool:
    """Write the passages of ``data`` into a corpus at ``folder``, under the ids that its gold passages have; False if there is a corpus.

    It is built beside ``folder`` and moved there when it is whole; a stopped call goes on with the same call. ``encoder`` None makes one
    for BM25 only. Raises `InputError` if ``data`` brings no passages.
    """
    if (folder / DATABASE).exists():
        return False
    if not data.passages:
        raise InputError(f"{data.name}: this data set brings no passages to index; build a corpus with `rag index` and name it by --corpus")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: there is something here that is not a corpus; name a new folder")
    building = folder.with_name(f"{folder.name}.building")
    corpus = Corpus.open(building) if (building / DATABASE).exists() else Corpus.create(building, encoder=encoder)
    if bool(corpus.dim) != (encoder is not None):
        raise ConfigError(
            f"{building}: a stopped run began this corpus {'with' if corpus.dim else 'without'} vectors; delete it and start again"
        )
    corpus.add_passages(data.passages, batch_passages=512, progress=progress)
    if encoder is not None:
        corpus.compact()
    corpus.close()
    building.replace(folder)
    return True


def _repointed(value: Any, paths: set[str], folder: str) -> Any:
    if isinstance(value, dict):
        entry = {key: _repointed(item, paths, folder) for key, item in value.items()}
        return {**entry, "path": folder} if entry.get("type") == "Corpus" and entry.get("path") in paths else entry
    return [_repointed(item, paths, folder) for item in value] if isinstance(value, list) else value
