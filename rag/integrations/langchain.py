"""graft in LangChain: ``pip install 'graft-rag[langchain]'``.

from rag import BM25, Corpus
from rag.integrations.langchain import GraftRetriever

GraftRetriever(searcher=BM25(Corpus.open("handbook")), k=4).invoke("How long may a suit be worn outside?")
"""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from rag.core.sync import run_sync
from rag.core.types import Hit
from rag.integrations.searching import check_k, metadata, search


class GraftRetriever(BaseRetriever):
    """Searches with ``searcher``: any retriever of graft, or a pipeline that ends in hits. ``k`` and ``filter`` (a condition on metadata,
    see `retrievers.filters`) may be given anew with each call: ``invoke(query, k=2)``. Raises `InputError` for a ``k`` below 1."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    searcher: Any
    k: int = Field(default=4, ge=1)
    filter: dict[str, Any] | None = None

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **given: Any) -> list[Document]:
        return run_sync(self._found(query, given))

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **given: Any
    ) -> list[Document]:
        return await self._found(query, given)

    async def _found(self, query: str, given: dict[str, Any]) -> list[Document]:
        k, condition = check_k(given.get("k", self.k)), given.get("filter", self.filter)
        return [_document(hit) for hit in await search(self.searcher, query, k, condition)]


def _document(hit: Hit) -> Document:
    return Document(page_content=hit.passage.text, id=hit.passage.id, metadata=metadata(hit))
