"""Conditions on passage metadata: checked strictly, compiled to parameterised SQL, and evaluated in Python with the same meaning.

``{"lang": "en", "year": {"gte": 2020, "lt": 2024}, "team": ["ops", "hr"], "draft": {"ne": True}}``: all fields must agree; a bare value
means ``eq``, a list means ``in``. The key ``document`` stands for the id of the passage's document and also takes ``prefix``.

Values keep their types: True is not 1, "1" is not 1, and 1 equals 1.0. Order (``gt gte lt lte``) exists among numbers and among strings
(by code point), never across. A missing field meets only ``ne``, ``nin`` and ``{"exists": False}``; None is a value, not a missing field.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rag.core.errors import InputError
from rag.core.types import Filter, Scalar

OPERATORS = ("eq", "ne", "in", "nin", "gt", "gte", "lt", "lte", "exists")
MAX_KEY = 256
"""Characters in a metadata key."""
MAX_VALUES = 10_000
"""Values in one ``in`` or ``nin``."""

_DOCUMENT = "document"
_ORDER: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {
    "gt": (">", operator.gt),
    "gte": (">=", operator.ge),
    "lt": ("<", operator.lt),
    "lte": ("<=", operator.le),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One test on one field. ``values`` has one entry except for ``in`` and ``nin``."""

    key: str
    operator: str
    values: tuple[Scalar, ...]


def parse(filter: Filter) -> tuple[Condition, ...]:
    """Check ``filter`` and break it into conditions, sorted by field. Raises `InputError` that lists what is allowed."""
    if not isinstance(filter, Mapping):
        raise InputError(f'a filter is a mapping such as {{"lang": "en"}}, not {type(filter).__name__}')
    conditions = [condition for key, value in filter.items() for condition in _field(key, value)]
    return tuple(sorted(conditions, key=lambda c: (c.key, c.operator, repr(c.values))))


def key_of(filter: Filter | None) -> str:
    """A string that is equal for filters of equal meaning and spelling; "" for no filter. Checks the filter."""
    return repr(parse(filter)) if filter else ""


def matches(filter: Filter, metadata: Mapping[str, Scalar], document: str = "") -> bool:
    """Whether a passage of ``document`` with ``metadata`` meets ``filter``; the same answer as `to_sql` gives in the corpus."""
    return all(_meets(condition, metadata, document) for condition in parse(filter))


def to_sql(filter: Filter) -> tuple[str, list[str]]:
    """A condition on the table ``passages AS p`` and its bound values. Keys and values of the filter never enter the SQL text."""
    pieces: list[str] = []
    values: list[str] = []
    for condition in parse(filter):
        sql, bound = _document_sql(condition) if condition.key == _DOCUMENT else _metadata_sql(condition)
        pieces.append(sql)
        values.extend(bound)
    return " AND ".join(pieces) or "1", values


def check_scalar(value: object, where: str) -> Scalar:
    """Return ``value`` if the corpus can hold it and compare it exactly. Raises `InputError`."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, where)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InputError(f"{where}: {str(value)[:40]} does not fit 64 bits; give such a number as a string")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"{where}: {value} is not a finite number")
        return value
    raise InputError(f"{where}: {type(value).__name__} is not allowed; a metadata value is a string, number, True, False or None")


def check_text(value: str, where: str) -> str:
    """Return ``value`` if it is text that UTF-8 can hold. Raises `InputError`."""
    if "\0" in value:
        raise InputError(f"{where}: the text holds a NUL character; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the text holds half of a surrogate pair at character {error.start}; it is not valid Unicode") from None
    return value


def check_key(key: object, where: str) -> str:
    """Return ``key`` if it can name a metadata field. Raises `InputError`."""
    if not isinstance(key, str) or not key or len(key) > MAX_KEY:
        raise InputError(f"{where}: a metadata key is a string of 1 to {MAX_KEY} characters, not {str(key)[:80]!r}")
    return check_text(key, where)


def _field(key: object, value: object) -> list[Condition]:
    name = check_key(key, "filter")
    if isinstance(value, Mapping):
        if not value:
            raise InputError(f"filter on '{name}': no operator given; allowed are: {', '.join(_allowed(name))}")
        return [_condition(name, op, operand) for op, operand in value.items()]
    return [_condition(name, "in" if isinstance(value, list | tuple | set | frozenset) else "eq", value)]


def _allowed(key: str) -> tuple[str, ...]:
    return ("eq", "ne", "in", "nin", "prefix") if key == _DOCUMENT else OPERATORS


def _condition(key: str, op: object, operand: object) -> Condition:
    where = f"filter on '{key}'"
    if not isinstance(op, str) or op not in _allowed(key):
        raise InputError(f"{where}: there is no operator {str(op)[:80]!r}; allowed are: {', '.join(_allowed(key))}")
    values = _operands(op, operand, where)
    if op in _ORDER and (values[0] is None or isinstance(values[0], bool)):
        raise InputError(f"{where}: '{op}' compares numbers or strings, not {values[0]}")
    if op == "exists" and not isinstance(values[0], bool):
        raise InputError(f"{where}: 'exists' takes True or False, not {operand!r}")
    if key == _DOCUMENT and not all(isinstance(value, str) for value in values):
        raise InputError(f"{where}: a document id is a string")
    return Condition(key, op, values)


def _operands(op: str, operand: object, where: str) -> tuple[Scalar, ...]:
    if op not in ("in", "nin"):
        return (check_scalar(operand, where),)
    if not isinstance(operand, list | tuple | set | frozenset):
        raise InputError(f"{where}: '{op}' takes a list of values, not {type(operand).__name__}")
    if not 1 <= len(operand) <= MAX_VALUES:
        raise InputError(f"{where}: '{op}' takes 1 to {MAX_VALUES} values, not {len(operand)}")
    return tuple(check_scalar(value, where) for value in operand)


def _kind(value: Scalar) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "text" if isinstance(value, str) else "number"


def _equal(one: Scalar, other: Scalar) -> bool:
    return _kind(one) == _kind(other) and one == other


def _meets(condition: Condition, metadata: Mapping[str, Scalar], document: str) -> bool:
    op, values = condition.operator, condition.values
    if condition.key == _DOCUMENT:
        if op == "prefix":
            return document.startswith(str(values[0]))
        return (document in values) == (op in ("eq", "in"))
    present = condition.key in metadata
    if op == "exists":
        return present == values[0]
    found = metadata.get(condition.key)
    if op in _ORDER:
        return present and _kind(found) == _kind(values[0]) and _ORDER[op][1](found, values[0])
    equal = present and any(_equal(found, value) for value in values)
    return equal == (op in ("eq", "in"))


def _document_sql(condition: Condition) -> tuple[str, list[str]]:
    if condition.operator == "prefix":
        prefix = str(condition.values[0])
        return "substr(p.document, 1, length(?)) = ?", [prefix, prefix]
    negation = "" if condition.operator in ("eq", "in") else "NOT "
    return f"p.document {negation}IN (SELECT value FROM json_each(?))", [_json(condition.values)]


def _metadata_sql(condition: Condition) -> tuple[str, list[str]]:
    # json_each compares the key as a bound value; a JSON path would have to quote it, and quotes in keys break out of paths.
    op, values = condition.operator, condition.values
    if op == "exists":
        test, bound = "1", []
    elif op in _ORDER:
        kind = "m.type = 'text'" if isinstance(values[0], str) else "m.type IN ('integer', 'real')"
        test, bound = f"{kind} AND m.value {_ORDER[op][0]} json_extract(?, '$[0]')", [_json(values)]
    else:
        test, bound = _equals_sql(values)
    positive = values[0] if op == "exists" else op not in ("ne", "nin")
    field = f"EXISTS (SELECT 1 FROM json_each(p.metadata) AS m WHERE m.key = ? AND ({test}))"
    return (field if positive else f"NOT {field}"), [condition.key, *bound]


def _equals_sql(values: tuple[Scalar, ...]) -> tuple[str, list[str]]:
    tests: list[str] = []
    bound: list[str] = []
    for kind, types in (("text", "'text'"), ("number", "'integer', 'real'")):
        group = tuple(value for value in values if _kind(value) == kind)
        if group:
            tests.append(f"(m.type IN ({types}) AND m.value IN (SELECT value FROM json_each(?)))")
            bound.append(_json(group))
    tests.extend(f"m.type = '{kind}'" for kind in ("null", "true", "false") if any(_kind(value) == kind for value in values))
    return " OR ".join(tests), bound


def _json(values: tuple[Scalar, ...]) -> str:
    # Numbers go through SQLite's own JSON parser, as the stored metadata did, so that both sides are rounded alike.
    return json.dumps(values, ensure_ascii=False, allow_nan=False)
