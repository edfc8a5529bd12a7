"""Documents as JSON lines on disk: what waits between an upload and the corpus, so that memory holds one document at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from rag.core.errors import InputError, ReadError
from rag.core.types import Document, Scalar
from rag.serve.documents.names import root_of
from rag.serve.documents.spool import SpoolFile
from rag.serve.openai_types import Strict
from retrievers.filters import check_key, check_scalar, check_text

MAX_ID = 2_000
"""Characters of a document's id; a passage's, which is a little longer, must fit what the corpus allows."""


class Line(Strict):
    """One document. What the corpus could not hold is refused here, where it concerns one file only."""

    id: str = Field(min_length=1, max_length=MAX_ID)
    text: str
    title: str = Field("", max_length=10_000)
    source: str = Field("", max_length=MAX_ID)
    format: Literal["text", "markdown"] = "text"
    metadata: dict[str, str | int | float | bool | None] = Field(default_factory=dict, max_length=10_000)

    @field_validator("id", "text", "title", "source")
    @classmethod
    def _text(cls, value: str) -> str:
        return check_text(value, "document")

    @field_validator("metadata")
    @classmethod
    def _metadata(cls, value: dict[str, Scalar]) -> dict[str, Scalar]:
        return {check_key(key, "metadata"): check_scalar(entry, f"metadata '{key[:80]}'") for key, entry in value.items()}

    def document(self) -> Document:
        """As the corpus takes it."""
        return Document(self.id, self.text, self.title, self.source, self.format, MappingProxyType(self.metadata))


@dataclass(frozen=True, slots=True)
class Parsed:
    """The documents of the file ``id``, checked; iterate it to read them from disk. ``root``: see `names.root_of`."""

    id: str
    root: str
    file: SpoolFile
    documents: int

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self.file.path.stat().st_size

    def __iter__(self) -> Iterator[Document]:
        with self.file.path.open("rb") as lines:
            for line in lines:
                yield Line.model_validate_json(line).document()


def write_lines(documents: Iterable[Line], file: SpoolFile) -> Parsed:
    """Documents that were sent one by one, each under its own name. Raises what `SpoolFile.write` raises."""
    number = 0
    for number, document in enumerate(documents, 1):  # noqa: B007
        file.write(document.model_dump_json().encode() + b"\n")
    file.close()
    return Parsed("", "", file, number)


def check_lines(id: str, file: SpoolFile, *, most: int, longest: int) -> Parsed:
    """What a parser wrote for the file ``id``, believed only after every line was checked.

    Raises `ReadError` for more than ``most`` lines, one of more than ``longest`` bytes, one that is no document, and one with an id that
    is not the file's: a parser that a hostile file took over must not replace the documents of others.
    """
    number = 0
    with file.path.open("rb") as lines:
        for number, line in enumerate(iter(lambda: lines.readline(longest + 1), b""), 1):
            if number > most:
                raise ReadError(f"has more than {most:,} documents; split it")
            if len(line) > longest:
                raise ReadError(f"has a document of more than {longest:,} bytes; split it")
            try:
                document = Line.model_validate_json(line)
            except (ValidationError, InputError) as error:
                raise ReadError(f"its document {number:,} cannot be kept: {_first(error)}") from None
            if document.id != id and not document.id.startswith(f"{id}#"):
                raise ReadError("its parser gave a document that is not of this file")
    return Parsed(id, root_of(id), file, number)


def _first(error: ValidationError | InputError) -> str:
    if isinstance(error, InputError):
        return str(error)
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part)[:60] for part in fault['loc'])}: {fault['msg']}"
