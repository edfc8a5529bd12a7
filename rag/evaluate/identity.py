"""What a run is: everything that could change its outcomes, as plain data that can be compared and shown."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import yaml

from rag.core.errors import InputError
from rag.core.registry import configuration
from rag.evaluate.types import DataSet
from retrievers.corpus import Corpus

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline

_USERINFO = re.compile(r"(?<=://)[^/@\s'\"]+@")


def data_key(data: DataSet) -> dict[str, Any]:
    """The data's fingerprint, and a digest of the questions that were selected from it, in order.

    Raises `InputError` if there are none, or if two have one id.
    """
    if not data.questions:
        raise InputError(f"{data.name}: there are no questions to ask")
    seen: set[str] = set()
    digest = hashlib.sha256()
    for question in data.questions:
        if question.id in seen:
            raise InputError(f"{data.name}: two questions have the id '{question.id}'; outcomes are kept by id, so ids must differ")
        seen.add(question.id)
        digest.update(json.dumps([question.id, question.question]).encode())
    return {"data": data.name, "fingerprint": data.fingerprint, "questions": len(data.questions), "selection": digest.hexdigest()}


def pipeline_key(pipeline: Pipeline) -> dict[str, Any]:
    """The whole configuration, the names of the models, and what the corpora hold; where a corpus lies does not matter.

    A server is asked for its model's name if the configuration leaves it open. Raises `ConfigError` for a node that is not a registered
    component, `CorpusError` for a corpus that cannot serve, and `ModelUnavailable`.
    """
    parts = list(components(pipeline))
    return {
        "pipeline": _without_places(pipeline.to_yaml()),
        "models": [str(part.name) for part in parts if hasattr(part, "agenerate") and hasattr(part, "name")],
        "corpora": [_contents(part) for part in parts if isinstance(part, Corpus)],
    }


def components(pipeline: Pipeline) -> Iterator[Any]:
    """Every component of the graph once: the nodes, and what their arguments hold."""
    seen: set[int] = set()

    def walk(value: Any) -> Iterator[Any]:
        if isinstance(value, Mapping):
            for item in value.values():
                yield from walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                yield from walk(item)
        elif hasattr(type(value), "__init__") and type(value).__module__ not in ("builtins", "pathlib") and id(value) not in seen:
            seen.add(id(value))
            yield value
            yield from walk(configuration(value))

    for node in pipeline.nodes.values():
        yield from walk(node.component)


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What differs between two keys, for people: each entry once, a longer text by its first line that differs."""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return "; ".join(f"{name}: {_change(before.get(name), after.get(name))}" for name in names)


def _change(before: Any, after: Any) -> str:
    if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
        lines, others = before.splitlines(), after.splitlines()
        length = max(len(lines), len(others))
        pairs = zip(lines + ["nothing"] * (length - len(lines)), others + ["nothing"] * (length - len(others)), strict=True)
        before, after = next((old.strip(), new.strip()) for old, new in pairs if old != new)
    return f"{_short(before)} then, {_short(after)} now"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return f"'{text}'" if len(text) <= 120 else f"'{text[:119]}…'"


def _without_places(text: str) -> str:
    return _USERINFO.sub("", yaml.safe_dump(_drop_paths(yaml.safe_load(text)), sort_keys=False, allow_unicode=True, width=1000))


def _drop_paths(value: Any) -> Any:
    if isinstance(value, dict):
        drop = "path" if value.get("type") == "Corpus" else None
        return {key: _drop_paths(item) for key, item in value.items() if key != drop}
    return [_drop_paths(item) for item in value] if isinstance(value, list) else value


def _contents(corpus: Corpus) -> dict[str, Any]:
    manifest = corpus.manifest()
    digest = hashlib.sha256()
    for segment in manifest.segments:
        digest.update(segment.files_json().encode())
    return {
        "passages": manifest.passages,
        "generation": manifest.generation,
        "encoder": manifest.encoder.identity,
        "analyzer": manifest.analyzer.identity,
        "segments": digest.hexdigest()[:16],
    }
