"""How a method searches while it writes: counted, heard by whoever listens, and merged with what was found before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest

from rag.core.protocols import Retriever
from rag.core.trace import Retrieved, count, emit
from rag.core.types import Filter, Hit


async def retrieve(retriever: Retriever, query: str, k: int, filter: Filter | None = None) -> list[Hit]:
    """The ``k`` best hits for ``query``. Counts one retrieval and emits `Retrieved`."""
    hits = (await retriever.asearch(query, k, filter))[:k]
    count(retrievals=1)
    emit(Retrieved(query, tuple(hits)))
    return hits


def interleave(rankings: Sequence[Sequence[Hit]], k: int) -> list[Hit]:
    """One ranking of at most ``k`` hits: the first of each ranking in turn, then the second of each, …; each passage once."""
    in_turn = (hit for level in zip_longest(*rankings) for hit in level if hit is not None)
    return _ranked(in_turn, k)


def append(pool: Sequence[Hit], hits: Sequence[Hit], most: int) -> list[Hit]:
    """``pool`` with the ``hits`` that it does not hold yet behind it, at most ``most`` in all; the pool keeps its places."""
    return _ranked([*pool, *hits], most)


def _ranked(hits: Iterable[Hit], most: int) -> list[Hit]:
    first: dict[str, Hit] = {}
    for hit in hits:
        first.setdefault(hit.passage.id, hit)
    return [replace(hit, rank=rank) for rank, hit in enumerate(list(first.values())[:most], start=1)]
