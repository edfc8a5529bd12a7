"""PDF: the text layer, with lines, pages and hyphens put back together."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from rag.core.errors import MissingDependency, ReadError
from rag.core.types import Document, Scalar
from retrievers.readers.encoding import clean
from retrievers.readers.sniff import require
from retrievers.readers.source import Content

MAX_PAGES = 5_000
MAX_CHARACTERS = 20_000_000
MAX_CONTENT_BYTES = 200_000_000

_SPLIT_WORD = re.compile(r"\b([^\W\d_]+)-\n([^\W\d_]+)")
_SPLIT_CJK = re.compile(r"(?<=[\u4e00-\u9fff，、；])\n(?=[\u4e00-\u9fff])")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_SENTENCE_END = tuple('.!?:;。！？：；…"”’)）')
_NO_TITLE = re.compile(r"untitled|microsoft word\b.*|.*\.(?:docx?|indd|tex|dvi|pdf|qxd|rtf|txt)", re.IGNORECASE)


def read_pdf(content: Content) -> Iterator[Document]:
    """Yield the one document of a PDF.

    Its metadata has ``pages`` and, where some pages have no text layer, ``pages_without_text``. The title is the PDF's own if it has a
    real one, else the file's stem. Raises `ReadError` for a damaged or password-protected file, one without a text layer, and one past
    `MAX_PAGES`, `MAX_CHARACTERS` or `MAX_CONTENT_BYTES` (the uncompressed drawing instructions of all pages).
    """
    path = str(content.path)
    require(content.data, path, wanted="a PDF", magic="a PDF")
    try:
        import pypdf
        from pypdf import apply_configuration
    except ImportError as error:
        raise MissingDependency("reading PDF needs pypdf; pip install 'graft-rag'") from error
    try:
        with apply_configuration(jbig2dec_binary=None):  # never start another program
            reader = pypdf.PdfReader(io.BytesIO(content.data), strict=False)
            if reader.is_encrypted and not reader.decrypt(""):
                raise ReadError(f"{path}: is protected by a password; save it without one")
            pages = _pages(reader, path)
            title = _title(reader)
    except ReadError:
        raise
    except Exception as error:  # whatever a hostile or broken file provokes in the parser, its recursion limit included
        raise ReadError(f"{path}: is a damaged or unsupported PDF ({type(error).__name__}: {str(error)[:200]})") from error
    blank = sum(not page.strip() for page in pages)
    if blank == len(pages):
        raise ReadError(f"{path}: has no text layer on its {len(pages)} pages (scanned images?); run OCR on it first")
    metadata: dict[str, Scalar] = {"pages": len(pages)}
    if blank:
        metadata["pages_without_text"] = blank
    text = _mended("".join(_joined(_without_running_lines(pages))))
    yield Document(content.id, text, title or content.path.stem, content.path.as_posix(), "text", MappingProxyType(metadata))


def _pages(reader: Any, path: str) -> list[str]:
    count = len(reader.pages)
    if count > MAX_PAGES:
        raise ReadError(f"{path}: has {count:,} pages, more than the limit of {MAX_PAGES:,}; split it")
    pages: list[str] = []
    characters = size = 0
    for page in reader.pages:
        contents = page.get_contents()
        size += len(contents.get_data()) if contents is not None else 0
        if size > MAX_CONTENT_BYTES:
            raise ReadError(
                f"{path}: its pages unpack to more than {MAX_CONTENT_BYTES:,} bytes (stopped at page {len(pages) + 1}); split it"
            )
        pages.append(clean(page.extract_text()))
        characters += len(pages[-1])
        if characters > MAX_CHARACTERS:
            raise ReadError(f"{path}: has more than {MAX_CHARACTERS:,} characters of text (stopped at page {len(pages)}); split it")
    return pages


def _title(reader: Any) -> str:
    """The document's own title; "" where a program filled in a file name, or the entry is broken."""
    try:
        title = clean(str((reader.metadata or {}).get("/Title") or "")).strip()
    except Exception:  # a title is not worth losing the text for
        return ""
    return "" if _NO_TITLE.fullmatch(title) else title


def _without_running_lines(pages: list[str]) -> list[str]:
    """The pages without headers, footers and page numbers: first and last lines that, digits aside, stand on most pages."""
    split = [page.strip().split("\n") for page in pages]
    for end in (0, -1):
        seen = Counter(_shape(lines[end]) for lines in split)
        running = {shape for shape, times in seen.items() if shape and times >= 3 and times > len(pages) / 2}
        for lines in split:
            if len(lines) > 1 and _shape(lines[end]) in running:
                del lines[end]
    return ["\n".join(lines) for lines in split]


def _shape(line: str) -> str:
    return re.sub(r"\d+", "0", line.strip())


def _joined(pages: list[str]) -> Iterator[str]:
    """Join pages so that a sentence which runs over the page break stays in one paragraph."""
    last = ""
    for page in filter(None, (page.strip() for page in pages)):
        if last:
            runs_on = not last.endswith(_SENTENCE_END) and (page[0].islower() or "\u4e00" <= page[0] <= "\u9fff")
            yield "\n" if runs_on else "\n\n"
        yield page
        last = page


def _mended(text: str) -> str:
    """Rejoin words and Chinese sentences that were split at a line end.

    The hyphen stays if the text spells the word with it elsewhere, or if what follows is a capital: "well-\\nknown", "Anglo-\\nSaxon".
    """
    text = text.replace("\xad\n", "").replace("\xad", "")
    words = set(_WORD.findall(text.lower()))

    def whole(match: re.Match[str]) -> str:
        head, tail = match[1], match[2]
        hyphenated = f"{head}-{tail}".lower() in words and (head + tail).lower() not in words
        return f"{head}-{tail}" if hyphenated or not tail[0].islower() else head + tail

    return _SPLIT_CJK.sub("", _SPLIT_WORD.sub(whole, text))
