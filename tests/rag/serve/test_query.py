from __future__ import annotations

import pytest
from pydantic import Field
from starlette.requests import Request

from rag.serve.errors import RequestError
from rag.serve.openai_types import Strict
from rag.serve.query import Count, parse_query


class Page(Strict):
    limit: Count = Field(100, ge=1, le=1_000)
    after: str = Field("", max_length=10)


def parsed(query: bytes) -> Page:
    return parse_query(Page, Request({"type": "http", "headers": [], "query_string": query}))


def test_what_is_not_given_has_its_default() -> None:
    assert parsed(b"") == Page(limit=100, after="")
    assert parsed(b"after=") == Page(limit=100, after="")
    assert parsed(b"limit=7&after=%E6%9C%8D+a%26b") == Page(limit=7, after="服 a&b")
    assert parsed(b"limit=007").limit == 7


@pytest.mark.parametrize(
    "value",
    ["0", "-1", "1001", "2147483648", "1e2", "5.0", "+5", "%205", "5%0A", "1_0", "%D9%A5", "0x5", "NaN", "true", "null", "", "9" * 5_000],
)
def test_a_number_is_written_in_digits_and_within_its_bounds(value: str) -> None:
    with pytest.raises(RequestError, match="limit") as refused:
        parsed(f"limit={value}".encode())
    assert (refused.value.status, len(refused.value.message) < 200) == (400, True)


@pytest.mark.parametrize(
    "query",
    [
        b"limit=1&limit=1",
        b"limit=1&limit=2",
        b"x=1",
        b"limit",
        b"=1",
        b"&",
        b"after=%FF",
        b"after=%ED%A0%80",
        b"after=\xff",
        b"&".join([b"a=1"] * 30),
    ],
)
def test_what_others_would_read_in_another_way_is_refused(query: bytes) -> None:
    with pytest.raises(RequestError) as refused:
        parsed(query)
    assert (refused.value.status, refused.value.code) == (400, "invalid_value")


def test_a_wrong_value_is_not_repeated() -> None:
    with pytest.raises(RequestError) as refused:
        parsed(b"after=s3cret-and-too-long")
    assert "s3cret" not in refused.value.message
