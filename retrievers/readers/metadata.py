"""Values of a source's own fields as metadata that a corpus can store and filter."""

from __future__ import annotations

import datetime
import json
from typing import Any

from rag.core.types import Scalar
from retrievers.readers.encoding import clean


def scalar(value: Any) -> Scalar:
    """``value`` as a metadata value: dates in ISO 8601, lists and objects as JSON text. Raises `ValueError` for NaN and infinity."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int):
        if abs(value) >= 1 << 63:
            return str(value)  # past what SQLite holds as a number
        return value
    if isinstance(value, (datetime.date, datetime.datetime)):
        return value.isoformat()
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        raise ValueError("NaN and infinity cannot be stored; write null")
    if isinstance(value, float):
        return value
    return clean(json.dumps(value, ensure_ascii=False, allow_nan=False, default=str))
