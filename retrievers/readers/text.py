"""Plain text: .txt, .log, .rst and the like, and files without a suffix."""

from __future__ import annotations

from collections.abc import Iterator

from rag.core.errors import ReadError
from rag.core.types import Document
from retrievers.readers.encoding import clean, decode
from retrievers.readers.sniff import refuse_binary
from retrievers.readers.source import Content


def read_text(content: Content) -> Iterator[Document]:
    """Yield the one document of a text file; its title is the file's stem. Raises `ReadError` for binary, undecodable or blank content."""
    refuse_binary(content.data, str(content.path))
    text = clean(decode(content.data, str(content.path)))
    if not text.strip():
        raise ReadError(f"{content.path}: is empty")
    yield Document(content.id, text, content.path.stem, content.path.as_posix())
