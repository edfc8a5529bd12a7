"""One way to search for all toolkits: with a retriever, or with a pipeline that ends in hits."""

from __future__ import annotations

from typing import Any

from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.core.protocols import Retriever
from rag.core.types import Filter, Hit

Searcher = Retriever | Pipeline


def check_k(k: Any) -> int:
    """``k``, if it is a whole number from 1. Raises `InputError`."""
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise InputError(f"k is a whole number from 1, not {k!r}")
    return k


async def search(searcher: Searcher, query: str, k: int, filter: Filter | None) -> list[Hit]:
    """At most ``k`` hits, best first. Raises `InputError` for a pipeline that ends in something else, and what the search raises."""
    if not isinstance(searcher, Pipeline):
        return await searcher.asearch(query, k=k, filter=filter)
    found = await searcher.arun(query, **({} if filter is None else {"filter": filter}))
    if not isinstance(found, list) or not all(isinstance(hit, Hit) for hit in found):
        raise InputError(f"the pipeline ends in {type(found).__name__}; a retriever is a pipeline that ends in a list of hits")
    return found[:k]


def metadata(hit: Hit) -> dict[str, Any]:
    """The passage's own metadata, and where it was found: a name of ours goes before one of the passage's."""
    passage = hit.passage
    place = {"document": passage.document, "title": passage.title, "start": passage.start, "end": passage.end}
    return {**passage.metadata, **place, "score": hit.score, "rank": hit.rank, "retriever": hit.retriever}
