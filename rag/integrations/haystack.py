"""graft in Haystack: ``pip install 'graft-rag[haystack]'``. (No postponed annotations here: Haystack compares the raw ones.)

from rag import BM25, Corpus
from rag.integrations.haystack import GraftRetriever

pipeline.add_component("retriever", GraftRetriever(BM25(Corpus.open("handbook")), top_k=4))
"""

from collections.abc import Mapping
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict

from rag.core.errors import InputError
from rag.core.pipeline import Pipeline
from rag.core.sync import run_sync
from rag.core.types import Hit
from rag.integrations.searching import Searcher, check_k, metadata, search

_OPERATORS = {"==": "eq", "!=": "ne", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte", "in": "in", "not in": "nin"}


@component
class GraftRetriever:
    """Searches with ``searcher``: any retriever of graft, or a pipeline that ends in hits. ``filters`` are Haystack's; conditions that are
    joined by AND are taken. It is written to YAML where its parts are (`Pipeline.to_yaml`), and read again by a Haystack that trusts this
    module: ``Pipeline.load(file, allowed_modules=["rag.integrations.haystack"])``. Raises `InputError`."""

    def __init__(self, searcher: Searcher, top_k: int = 10, filters: dict[str, Any] | None = None) -> None:
        self.searcher = searcher
        self.top_k = check_k(top_k)
        self.filters = filters
        condition(filters)

    def to_dict(self) -> dict[str, Any]:
        """For Haystack's YAML. Raises `ConfigError` for parts that are no registered components."""
        pipeline = self.searcher if isinstance(self.searcher, Pipeline) else Pipeline().add("search", self.searcher)
        written: dict[str, Any] = default_to_dict(self, searcher=pipeline.to_yaml(), top_k=self.top_k, filters=self.filters)
        return written

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "GraftRetriever":
        """From Haystack's YAML. Only registered components are built (`Pipeline.from_yaml`)."""
        given = dict(data["init_parameters"])
        made: GraftRetriever = default_from_dict(
            cls, {**data, "init_parameters": {**given, "searcher": Pipeline.from_yaml(given["searcher"])}}
        )
        return made

    @component.output_types(documents=list[Document])
    def run(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, list[Document]]:
        """The documents, best first."""
        return run_sync(self._found(query, filters, top_k))

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None) -> dict[str, list[Document]]:
        """The same, for asynchronous pipelines."""
        return await self._found(query, filters, top_k)

    async def _found(self, query: str, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, list[Document]]:
        k = self.top_k if top_k is None else check_k(top_k)
        hits = await search(self.searcher, query, k, condition(self.filters if filters is None else filters))
        return {"documents": [_document(hit) for hit in hits]}


def condition(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Haystack's filters as a condition of graft. Raises `InputError` for OR and NOT, which a condition cannot say."""
    if not filters:
        return None
    found: dict[str, dict[str, Any]] = {}
    for field, operator, value in _comparisons(filters):
        tests = found.setdefault(field.removeprefix("meta."), {})
        if _OPERATORS[operator] in tests:
            raise InputError(f"filters: '{field}' is compared by '{operator}' twice; once is taken")
        tests[_OPERATORS[operator]] = value
    return found


def _comparisons(filters: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    if "conditions" in filters:
        if filters.get("operator") != "AND" or not isinstance(filters["conditions"], list):
            raise InputError(f"filters: conditions are joined by AND here, not by {filters.get('operator')!r}")
        return [one for each in filters["conditions"] for one in _comparisons(each)]
    if set(filters) != {"field", "operator", "value"} or filters["operator"] not in _OPERATORS or not isinstance(filters["field"], str):
        raise InputError(f"filters: a condition has a field, a value and an operator out of {', '.join(_OPERATORS)}; not {dict(filters)!r}")
    return [(filters["field"], filters["operator"], filters["value"])]


def _document(hit: Hit) -> Document:
    return Document(id=hit.passage.id, content=hit.passage.text, meta=metadata(hit), score=hit.score)
