"""``--filter`` on the command line, as a filter on metadata."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from rag.core.errors import InputError

_OPERATORS = {"!=": "ne", ">=": "gte", "<=": "lte", ">": "gt", "<": "lt", "=": "eq"}
_CONDITION = re.compile(r"(?P<key>[^=!<>]+)(?P<operator>!=|>=|<=|>|<|=)(?P<value>.*)", re.DOTALL)


def parse_conditions(conditions: Iterable[str]) -> dict[str, Any]:
    """``["lang=en", "year>=2020", "team=ops", "team=hr"]`` as ``{"lang": "en", "year": {"gte": 2020}, "team": ["ops", "hr"]}``.

    A value that reads as a JSON number, true, false or null is one; in double quotes it is text: ``code="007"``. Several ``key=value`` of
    one key mean any of them. Raises `InputError` that shows the form.
    """
    equals: dict[str, list[Any]] = {}
    others: dict[str, dict[str, Any]] = {}
    for condition in conditions:
        match = _CONDITION.fullmatch(condition)
        if match is None or not match["key"].strip():
            raise InputError(f"--filter {condition!r}: write key=value; operators are {' '.join(sorted(_OPERATORS))}")
        key, operator, value = match["key"].strip(), _OPERATORS[match["operator"]], _scalar(match["value"])
        if operator == "eq":
            equals.setdefault(key, []).append(value)
        elif operator in others.get(key, {}):
            raise InputError(f"--filter {condition!r}: '{key}{match['operator']}' stands twice")
        else:
            others.setdefault(key, {})[operator] = value
    both = equals.keys() & others.keys()
    if both:
        raise InputError(f"--filter: '{min(both)}' has an equality and another condition; give one of them")
    return {**{key: values[0] if len(values) == 1 else values for key, values in equals.items()}, **others}


def _scalar(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    plain = value is None or isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else text
