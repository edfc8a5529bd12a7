"""From documents, or ready passages, to entries that can be written: checked, hashed, and chunked only if they are new."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from rag.core.errors import InputError
from rag.core.types import Document, Passage, Scalar
from retrievers.corpus.commits import dump_metadata
from retrievers.corpus.parts import Chunker
from retrievers.filters import check_key, check_scalar, check_text

MAX_ID = 2048
"""Characters in the id of a document or passage."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A document that may have to be written. ``digest`` tells whether it changed; ``chunk`` is called only if it did."""

    document: Document
    digest: str
    chunk: Callable[[], list[Passage]]


def from_documents(documents: Iterable[Document], chunker: Chunker) -> Iterator[Candidate]:
    """One candidate per document. Raises `InputError` for one that the corpus cannot hold."""
    identity = chunker.identity
    for document in documents:
        if not isinstance(document, Document):
            raise InputError(f"add takes documents (rag.Document), not {type(document).__name__}")
        _check_document(document)
        content = [identity, document.text, document.title, document.format, dump_metadata(dict(document.metadata))]
        yield Candidate(document, _digest(content), _Chunk(chunker, document))


def from_passages(passages: Iterable[Passage]) -> Iterator[Candidate]:
    """One candidate per run of passages of one document; a passage without a document is one of its own, under its own id."""
    for id, group in groupby(_checked(passages), key=lambda passage: passage.document or passage.id):
        members = [replace(passage, document=id) for passage in group]
        content = [[p.id, p.text, p.title, p.start, p.end, dump_metadata(dict(p.metadata))] for p in members]
        document = Document(id, "", title=members[0].title)
        yield Candidate(document, _digest(["passages", *content]), _Ready(members))


def indexed_text(passage: Passage) -> str:
    """What is encoded and analysed: the title, then the text, unless the text begins with the title already."""
    title, text = passage.title, passage.text
    return text if not title or text.startswith(title) else f"{title}\n{text}"


@dataclass(frozen=True, slots=True)
class _Ready:
    passages: list[Passage]

    def __call__(self) -> list[Passage]:
        return [passage for passage in self.passages if passage.text.strip()]


@dataclass(frozen=True, slots=True)
class _Chunk:
    chunker: Chunker
    document: Document

    def __call__(self) -> list[Passage]:
        document = self.document
        if not document.text.strip():
            return []
        passages = []
        for passage in self.chunker.chunk(document):
            _check_passage(passage)
            metadata = {**document.metadata, **passage.metadata}
            if passage.text.strip():
                passages.append(replace(passage, document=document.id, title=passage.title or document.title, metadata=metadata))
        return passages


def _checked(passages: Iterable[Passage]) -> Iterator[Passage]:
    for passage in passages:
        if not isinstance(passage, Passage):
            raise InputError(f"add_passages takes passages (rag.Passage), not {type(passage).__name__}")
        _check_passage(passage)
        yield passage


def _check_document(document: Document) -> None:
    where = f"document {str(document.id)[:80]!r}"
    _check_id(document.id, where)
    for name in ("text", "title", "source"):
        _check_string(getattr(document, name), f"{where}, {name}")
    if document.format not in ("text", "markdown"):
        raise InputError(f"{where}: format must be 'text' or 'markdown', not {document.format!r}")
    _check_metadata(document.metadata, where)


def _check_passage(passage: Passage) -> None:
    where = f"passage {str(passage.id)[:80]!r}"
    _check_id(passage.id, where)
    if passage.document:
        _check_id(passage.document, f"{where}, document")
    for name in ("text", "title"):
        _check_string(getattr(passage, name), f"{where}, {name}")
    _check_metadata(passage.metadata, where)


def _check_id(id: object, where: str) -> None:
    if not isinstance(id, str) or not id.strip() or len(id) > MAX_ID:
        raise InputError(f"{where}: an id is a string of 1 to {MAX_ID} characters that is not blank")
    check_text(id, where)


def _check_string(value: object, where: str) -> None:
    if not isinstance(value, str):
        raise InputError(f"{where}: must be a string, not {type(value).__name__}")
    check_text(value, where)


def _check_metadata(metadata: object, where: str) -> None:
    items: Iterable[tuple[object, Scalar]]
    try:
        items = dict(metadata).items()  # type: ignore[call-overload]
    except (TypeError, ValueError):
        raise InputError(f"{where}: metadata must be a mapping, not {type(metadata).__name__}") from None
    for key, value in items:
        check_key(key, f"{where}, metadata")
        check_scalar(value, f"{where}, metadata '{key}'")


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False).encode()).hexdigest()
