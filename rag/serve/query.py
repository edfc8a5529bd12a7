"""What stands in an address behind the "?", checked as strictly as a body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BeforeValidator, ValidationError
from pydantic_core import PydanticCustomError

from rag.serve.errors import RequestError
from rag.serve.openai_types import Strict

if TYPE_CHECKING:
    from starlette.requests import Request

_MOST = 20
"""Parameters of one address; no route has so many."""

_LONGEST = 18
"""Digits of a number."""

Q = TypeVar("Q", bound=Strict)


def _digits(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not (value.isascii() and value.isdigit() and len(value) <= _LONGEST):
        raise PydanticCustomError("digits", "a whole number is written in digits, such as 100")
    return int(value)


Count = Annotated[int, BeforeValidator(_digits)]
"""A number in an address: digits only, not " 5", "+5", "5.0" or "1_000", which others read as numbers too."""


def parse_query(kind: type[Q], request: Request) -> Q:
    """The query of ``request`` as a checked ``kind``. Raises `RequestError` (400) for what is no UTF-8 or not of the form ``name=value``,
    a name that is unknown or comes twice, and a wrong value."""
    raw: bytes = request.scope["query_string"]
    try:
        pairs = parse_qsl(raw.decode("ascii"), True, True, errors="strict", max_num_fields=_MOST) if raw else []
    except ValueError:
        reason = f"the address has a query that is not of the form name=value&…, not UTF-8, or of more than {_MOST} parameters"
        raise RequestError(400, reason, code="invalid_value") from None
    given = dict(pairs)
    if len(given) < len(pairs):  # one that reads the first and one that reads the last would see different requests
        raise RequestError(400, "the address has a parameter twice; give each once", code="invalid_value")
    try:
        return kind.model_validate_strings(given)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part)[:60] for part in fault["loc"])
        raise RequestError(400, f"{place}: {fault['msg']}", code="invalid_value") from None
