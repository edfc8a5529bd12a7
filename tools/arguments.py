"""Arguments against the JSON Schema of a tool: types, names, what is required.

The subset of JSON Schema that tools use (type, properties, required, additionalProperties, items, enum, const, anyOf, oneOf, allOf, local
$ref). An argument that ``properties`` does not name is refused unless ``additionalProperties`` allows it in so many words: models invent
names. Inside an argument JSON Schema's own rule holds: what is not forbidden is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rag.core.errors import InputError

_DEPTH = 32
_CHECKS = 10_000
"""A schema that refers to itself in several places would be followed exponentially often."""
_PARTS = {"$ref", "allOf", "anyOf", "oneOf"}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list, tuple),
    "object": (Mapping,),
}


@dataclass(frozen=True, slots=True)
class _Root:
    """What "#" refers to, and the checks that are left."""

    schema: Mapping[str, Any]
    left: Iterator[int]


def check_arguments(schema: Mapping[str, Any], arguments: Any, tool: str) -> None:
    """Raise `InputError` unless ``arguments`` is an object that ``schema`` describes."""
    if not isinstance(arguments, Mapping):
        raise InputError(f"{tool}: the arguments must be an object, not {type(arguments).__name__}")
    closed = {"additionalProperties": False} if "properties" in schema or not _PARTS & schema.keys() else {}
    _check({"type": "object", **closed, **schema}, arguments, _Root(schema, iter(range(_CHECKS))), tool, _DEPTH)


def _check(schema: Any, value: Any, root: _Root, where: str, depth: int) -> None:
    if depth == 0:
        raise InputError(f"{where}: nested deeper than {_DEPTH} levels")
    if next(root.left, None) is None:
        raise InputError(f"{where}: the schema takes more than {_CHECKS:,} checks; does it refer to itself in several places?")
    if not isinstance(schema, Mapping):  # true and false are schemas
        if schema is False:
            raise InputError(f"{where}: no value is allowed here")
        return
    if "$ref" in schema:
        _check(_resolved(root, schema["$ref"], where), value, root, where, depth - 1)
    _check_type(schema.get("type"), value, where)
    if "enum" in schema and value not in schema["enum"]:
        raise InputError(f"{where}: {value!r} is not one of {', '.join(map(repr, schema['enum']))}")
    if "const" in schema and value != schema["const"]:
        raise InputError(f"{where}: must be {schema['const']!r}, not {value!r}")
    for part in schema.get("allOf", ()):
        _check(part, value, root, where, depth - 1)
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            _check_any(schema[keyword], value, root, where, depth - 1)
    if isinstance(value, Mapping):
        _check_object(schema, value, root, where, depth)
    if isinstance(value, (list, tuple)) and "items" in schema:
        for number, item in enumerate(value, 1):
            _check(schema["items"], item, root, f"{where}[{number}]", depth - 1)


def _check_type(kind: Any, value: Any, where: str) -> None:
    kinds = [kind] if isinstance(kind, str) else list(kind or ())
    if kinds and not any(_is(value, name) for name in kinds):
        raise InputError(f"{where}: must be {' or '.join(kinds)}, not {type(value).__name__} {str(value)[:40]!r}")


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(kind, (object,)))


def _check_any(parts: Sequence[Any], value: Any, root: _Root, where: str, depth: int) -> None:
    reasons = []
    for part in parts:
        try:
            return _check(part, value, root, where, depth)
        except InputError as reason:
            reasons.append(str(reason))
    told = "; ".join(reason[:200] for reason in reasons[:4])  # a reason may hold reasons
    raise InputError(f"{where}: fits none of {len(parts)} forms ({told})")


def _check_object(schema: Mapping[str, Any], value: Mapping[str, Any], root: _Root, where: str, depth: int) -> None:
    properties = schema.get("properties", {})
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        raise InputError(f"{where}: missing {', '.join(map(repr, missing))}; it takes {', '.join(map(repr, properties)) or 'nothing'}")
    extra = schema.get("additionalProperties", True)
    for name, item in value.items():
        if name in properties:
            _check(properties[name], item, root, f"{where}.{name}", depth - 1)
        elif extra is False:
            raise InputError(f"{where}: unknown argument '{str(name)[:40]}'; it takes {', '.join(map(repr, properties)) or 'nothing'}")
        else:
            _check(extra, item, root, f"{where}.{str(name)[:40]}", depth - 1)


def _resolved(root: _Root, reference: Any, where: str) -> Any:
    target: Any = root.schema
    steps = reference.split("/") if isinstance(reference, str) else [""]
    for step in steps[1:]:
        target = target.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(target, Mapping) else None
    if steps[0] != "#" or target is None:
        raise InputError(f"{where}: the schema refers to {reference!r}, which it does not hold")
    return target
