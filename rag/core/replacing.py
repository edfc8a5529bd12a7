"""The same graph with another part: another model in the place of a model, say."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rag.core.errors import ConfigError

if TYPE_CHECKING:
    from rag.core.pipeline import Pipeline

Replace = Callable[[Any], Any]
"""Gives another part, or the same one if it stays."""


def replaced(pipeline: Pipeline, replace: Replace) -> Pipeline:
    """A pipeline of the same nodes, edges and limits, in which ``replace(part)`` stands for every part of its components.

    A component keeps its arguments as attributes of the same names: what holds a part that changes is built anew from them, once where it
    is shared; all else is the same object in both. Raises `ConfigError` for one that cannot be built anew.
    """
    from rag.core.pipeline import Pipeline

    made: dict[int, Any] = {}
    other = Pipeline()
    for node in pipeline.nodes.values():
        other.add(node.name, _part(node.component, replace, made), timeout=node.timeout)
    other.edges = list(pipeline.edges)
    return other


def _part(part: Any, replace: Replace, made: dict[int, Any]) -> Any:
    if part is None or isinstance(part, (str, bytes, int, float, type)):
        return part
    if id(part) not in made:
        new = replace(part)
        made[id(part)] = new if new is not part else _rebuilt(part, replace, made)
    return made[id(part)]


def _rebuilt(part: Any, replace: Replace, made: dict[int, Any]) -> Any:
    if isinstance(part, (list, tuple)) and type(part) in (list, tuple):
        inside = [_part(item, replace, made) for item in part]
        return part if all(new is old for new, old in zip(inside, part, strict=True)) else type(part)(inside)
    if type(part) is dict:
        values = {key: _part(value, replace, made) for key, value in part.items()}
        return part if all(values[key] is part[key] for key in part) else values
    kept = _arguments(part)
    new = {name: _part(value, replace, made) for name, value in kept.items()}
    if all(new[name] is kept[name] for name in kept):
        return part
    missing = [name for name in inspect.signature(type(part)).parameters if name not in kept]
    if missing:
        raise ConfigError(f"{type(part).__name__} does not keep its argument '{missing[0]}' as an attribute, so it cannot be built anew")
    return type(part)(**new)


def _arguments(part: Any) -> Mapping[str, Any]:
    """What ``part`` keeps of its constructor's arguments, read without running anything of its own: a property may load a model."""
    fields = getattr(part, "__dict__", None)
    if not isinstance(fields, dict) or inspect.isroutine(part) or inspect.ismodule(part):
        return {}
    try:
        names = inspect.signature(type(part)).parameters
    except (TypeError, ValueError):  # built in
        return {}
    return {name: fields[name] for name in names if name in fields}
