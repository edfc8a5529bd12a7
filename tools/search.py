"""Search in a corpus, as a tool (the Wikipedia search of Schick et al. 2023, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rag.core.errors import InputError
from rag.core.protocols import Retriever
from rag.core.registry import component
from rag.core.trace import Retrieved, count, emit
from tools.tool import cite


@component
class CorpusSearch:
    """Gives the ``k`` best passages that ``retriever`` finds; they become sources of the answer. No hit is a result that says so."""

    name = "Search"
    description = "looks up passages about something in the documents"
    schema: Mapping[str, Any] = {
        "type": "object",
        "properties": {"query": {"type": "string", "minLength": 1, "description": "a few words"}},
        "required": ["query"],
        "examples": [{"query": "height of the north lighthouse"}],
    }

    def __init__(self, retriever: Retriever, k: int = 1) -> None:
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise InputError(f"CorpusSearch: k must be an integer of at least 1, not {k!r}")
        self.retriever = retriever
        self.k = k

    async def acall(self, arguments: Mapping[str, Any]) -> str:
        """The passages found for ``arguments["query"]``, title and text, a line each."""
        query = arguments["query"].strip()
        if not query:
            raise InputError("the query is empty; give a few words")
        hits = (await self.retriever.asearch(query, self.k))[: self.k]
        count(retrievals=1)
        emit(Retrieved(query, tuple(hits)))
        cite(hits)
        found = (f"{hit.passage.title}: {hit.passage.text}" if hit.passage.title else hit.passage.text for hit in hits)
        return "\n".join(" ".join(text.split()) for text in found) or "nothing found"
