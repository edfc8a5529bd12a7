"""The two nodes of the graph benchmark as Haystack components. (No postponed annotations here: Haystack compares the raw ones.)"""

from haystack import Document, component


@component
class HaystackSource:
    """Gives the same documents for every query."""

    def __init__(self, documents: list[Document]) -> None:
        self.documents = documents

    @component.output_types(documents=list[Document])
    def run(self, query: str) -> dict[str, list[Document]]:
        """Return the documents."""
        return {"documents": self.documents}


@component
class HaystackPass:
    """Hands its documents on."""

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, list[Document]]:
        """Return what came in."""
        return {"documents": documents}
