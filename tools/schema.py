"""JSON schemas of strangers (an OpenAPI description, an MCP server), made plain: without references, and of bounded size.

A reference can lead in a circle, and a few that lead to each other can make a small schema grow without end; whoever checks a value against
such a schema would never come back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rag.core.errors import InputError

_MAX_HOPS = 20
_MAX_DEPTH = 12
_MAX_PARTS = 2_000
# What says which values are taken. "pattern" is left to the server: an expression of a stranger may take for ever to match.
_KEPT = {"type", "properties", "required", "items", "enum", "const", "description", "default", "format", "minimum", "maximum"}
_KEPT |= {"minLength", "maxLength", "minItems", "maxItems", "oneOf", "anyOf", "allOf", "additionalProperties"}


def resolve(root: Mapping[str, Any], node: Any) -> Mapping[str, Any]:
    """``node``, or what its ``$ref`` points to within ``root``. Raises `InputError` for a reference to another file, to nothing or in a
    circle."""
    for _ in range(_MAX_HOPS):
        if not isinstance(node, Mapping):
            raise InputError(f"the description has {type(node).__name__} where an object belongs")
        if "$ref" not in node:
            return node
        node = _target(root, node["$ref"])
    raise InputError(f"the description has references that lead in a circle (after {_MAX_HOPS}, at {node!r:.100})")


def written_out(root: Mapping[str, Any], node: Any) -> dict[str, Any]:
    """The schema ``node`` on its own, as JSON: references within ``root`` written out, 12 levels deep and 2,000 parts in all; beyond that,
    anything is taken and the server decides. Raises `InputError` as `resolve`."""
    return _Expansion(root).of(node, 0)


class _Expansion:
    """One schema being written out, and how much of it there may still be."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = _MAX_PARTS

    def of(self, node: Any, depth: int) -> dict[str, Any]:
        self._left -= 1
        if self._left < 0 or depth > _MAX_DEPTH or not isinstance(node, Mapping):
            return {}
        node = resolve(self._root, node)
        kept = {key: self._value(key, node[key], depth + 1) for key in node if key in _KEPT}
        if node.get("nullable") is True and isinstance(kept.get("type"), str):  # OpenAPI 3.0
            kept["type"] = [kept["type"], "null"]
            if isinstance(kept.get("enum"), list):
                kept["enum"] = [*kept["enum"], None]
        return kept

    def _value(self, key: str, value: Any, depth: int) -> Any:
        if key == "properties" and isinstance(value, Mapping):
            return {str(name): self.of(part, depth) for name, part in value.items() if not _read_only(part)}
        if key in ("items", "additionalProperties") and isinstance(value, Mapping):
            return self.of(value, depth)
        if key in ("oneOf", "anyOf", "allOf") and isinstance(value, list):
            return [self.of(part, depth) for part in value]
        try:
            return json.loads(json.dumps(value, default=str))  # YAML knows dates and the like, JSON does not
        except (TypeError, ValueError, RecursionError):  # keys that are no text, an alias to what holds it
            return str(value)[:100]


def _read_only(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("readOnly") is True


def _target(root: Mapping[str, Any], reference: Any) -> Any:
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise InputError(f"the description refers to {reference!r:.200}; only references within it (#/…) are followed")
    target: Any = root
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(target, Mapping) or key not in target:
            raise InputError(f"the description refers to {reference!r:.200}, which is not in it")
        target = target[key]
    return target
