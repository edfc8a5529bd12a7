"""Where documents are taken in: everything that the routes of documents need, made and closed together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag.serve.documents.parsing import Parser
from rag.serve.documents.receiving import Receiver
from rag.serve.documents.shelf import Shelf
from rag.serve.documents.spool import Spool

if TYPE_CHECKING:
    from rag.serve.settings import Uploads


class Desk:
    """What is uploaded goes to the spool (`receiver`), is parsed in a process of its own (`parser`) and written to the corpus (`shelf`)."""

    def __init__(self, uploads: Uploads) -> None:
        self._spool = Spool(uploads.spool)
        self.shelf = Shelf(uploads.corpus)
        self.receiver = Receiver(self._spool)
        self.parser = Parser(self._spool)

    def close(self) -> None:
        """Finish the commit that is being written. Blocks until then."""
        self.shelf.close()
        self._spool.close()
