"""From a path to documents: picks the reader by suffix and names what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rag.core.errors import ReadError
from rag.core.types import Document
from retrievers.readers.delimited import read_delimited
from retrievers.readers.docx import read_docx
from retrievers.readers.html import read_html
from retrievers.readers.jsonl import read_jsonl
from retrievers.readers.markdown import read_markdown
from retrievers.readers.pdf import read_pdf
from retrievers.readers.source import MAX_BYTES, Content, SourceFile, load, shown
from retrievers.readers.text import read_text

_READERS: dict[str, Callable[[Content], Iterator[Document]]] = {
    **dict.fromkeys((".txt", ".text", ".log", ".rst", ".adoc", ".org", ""), read_text),
    **dict.fromkeys((".md", ".markdown", ".mdown", ".mkd"), read_markdown),
    **dict.fromkeys((".html", ".htm", ".xhtml"), read_html),
    **dict.fromkeys((".csv", ".tsv"), read_delimited),
    **dict.fromkeys((".jsonl", ".ndjson"), read_jsonl),
    ".pdf": read_pdf,
    ".docx": read_docx,
}
SUFFIXES = tuple(sorted(filter(None, _READERS)))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that could not be read, and why."""

    path: Path
    reason: str


def read(path: str | Path, root: str | Path | None = None, *, max_bytes: int = MAX_BYTES) -> Iterator[Document]:
    """Yield the documents of one file; a document's id is the path below ``root`` (the file's folder if None).

    A CSV, TSV or JSON Lines file gives one document per record, called ``path#record``; all its records are checked before the first is
    given. Raises `ReadError` that begins with the path and states the reason, before the first document.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ReadError(
            f"{shown(path)}: there is no reader for {path.suffix} files; readable are {', '.join(SUFFIXES)} and files without a suffix"
        )
    try:
        yield from reader(load(path, root, max_bytes))
    except (RecursionError, MemoryError) as error:
        raise ReadError(f"{path}: is nested too deeply or too large to be read ({type(error).__name__})") from error


def read_files(files: Iterable[SourceFile], on_skip: Callable[[Skipped], None] | None, *, max_bytes: int = MAX_BYTES) -> Iterator[Document]:
    """Yield the documents of ``files`` lazily, in order.

    A file that cannot be read goes to ``on_skip`` as a whole, none of its documents is given; with ``on_skip`` None its `ReadError` is
    raised instead.
    """
    for file in files:
        try:
            yield from read(file.path, file.root, max_bytes=max_bytes)
        except ReadError as error:
            if on_skip is None:
                raise
            on_skip(Skipped(file.path, str(error).removeprefix(f"{shown(file.path)}: ")))
