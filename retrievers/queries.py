"""What every retriever checks about a query, and the value under which its calls are batched."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from rag.core.errors import InputError
from rag.core.types import Filter
from retrievers.filters import check_text, key_of

MAX_QUERY = 32_768
"""Characters. A longer query is an accident (a whole file pasted in) and would only slow others down."""
MAX_K = 100_000
"""Hits per query."""


@dataclass(frozen=True, slots=True)
class Query:
    """One call of a search. Calls with equal ``k`` and filter may share a batch."""

    text: str
    k: int
    filter: Filter | None
    filter_key: str

    @staticmethod
    def of(text: str, k: int, filter: Filter | None) -> Query:
        """Check the arguments of a search. Raises `InputError`."""
        return Query(check_query(text), check_k(k), filter, key_of(filter))


def group_key(query: Query) -> Hashable:
    """What must be equal within a batch."""
    return query.k, query.filter_key


def check_query(query: str) -> str:
    """Return ``query`` if it is text that is not blank and not too long. Raises `InputError`."""
    if not isinstance(query, str):
        raise InputError(f"a query is a string, not {type(query).__name__}")
    if not query or query.isspace():
        raise InputError("the query is empty; give it at least one word")
    if len(query) > MAX_QUERY:
        raise InputError(f"the query has {len(query)} characters; {MAX_QUERY} are allowed: shorten it")
    return check_text(query, "query")


def check_k(k: int) -> int:
    """Return ``k`` if it is a sensible number of hits. Raises `InputError`."""
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
        raise InputError(f"k, the number of hits, must be an integer from 1 to {MAX_K}, not {k!r}")
    return k
