"""Word documents (.docx) as Markdown: headings, paragraphs, lists and tables in their order."""

from __future__ import annotations

import importlib
import io
import re
import zipfile
from collections.abc import Iterator
from typing import Any

from rag.core.errors import MissingDependency, ReadError
from rag.core.types import Document
from retrievers.chunkers.outline import first_heading
from retrievers.readers import markup
from retrievers.readers.encoding import clean
from retrievers.readers.sniff import require
from retrievers.readers.source import Content

MAX_UNPACKED_BYTES = 300_000_000
MAX_RATIO = 200
MAX_ENTRIES = 10_000

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"  # repeats what its sibling says
_NOT_TEXT = frozenset({_FALLBACK, f"{_W}del", f"{_W}moveFrom", f"{_W}pPr", f"{_W}rPr"})
_SIGNS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_HEADING_STYLE = re.compile(r"(?:heading|标题|überschrift|titre|título)\s*([1-9])", re.IGNORECASE)


def read_docx(content: Content) -> Iterator[Document]:
    """Yield the one document of a Word file, as Markdown.

    The title is the one in the file's properties, else the first heading, else the file's stem. Raises `ReadError` for a damaged,
    protected or empty file, for one that would unpack to more than `MAX_UNPACKED_BYTES` or `MAX_RATIO` times its size, and for XML with
    a document type (which Word never writes, and entity attacks need).
    """
    path = str(content.path)
    require(content.data, path, wanted="a Word document", magic="a ZIP archive or an Office file")
    try:
        docx: Any = importlib.import_module("docx")
    except ImportError as error:
        raise MissingDependency("reading Word documents needs python-docx; pip install 'graft-rag'") from error
    try:
        _check_archive(content.data, path)
        word = docx.Document(io.BytesIO(content.data))
        markdown = clean("\n\n".join(_blocks(word.element.body, _styles(word))))
        title = clean(word.core_properties.title or "").strip()
    except ReadError:
        raise
    except Exception as error:  # whatever a hostile or broken file provokes in the unpacker and the parser
        raise ReadError(f"{path}: is not a readable Word document ({type(error).__name__}: {str(error)[:200]})") from error
    if not markdown.strip():
        raise ReadError(f"{path}: has no text (only images?)")
    yield Document(content.id, markdown, title or first_heading(markdown) or content.path.stem, content.path.as_posix(), "markdown")


def _check_archive(data: bytes, path: str) -> None:
    """Raise `ReadError` for a decompression bomb or an XML part with a document type, before anything is built from them.

    The sizes in the directory can be trusted: zipfile stops at them and then fails on the checksum.
    """
    etree: Any = importlib.import_module("lxml.etree")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        unpacked = sum(entry.file_size for entry in entries)
        if len(entries) > MAX_ENTRIES or unpacked > MAX_UNPACKED_BYTES or unpacked > max(MAX_RATIO * len(data), 10_000_000):
            limits = f"{MAX_UNPACKED_BYTES:,} bytes, {MAX_RATIO} times its size and {MAX_ENTRIES:,} parts"
            raise ReadError(f"{path}: would unpack to {unpacked:,} bytes in {len(entries):,} parts; the limits are {limits}")
        for entry in entries:
            if entry.filename.endswith((".xml", ".rels")):
                parser = etree.XMLParser(resolve_entities=False, load_dtd=False, no_network=True)
                root = etree.fromstring(archive.read(entry), parser)
                if root.getroottree().docinfo.internalDTD is not None:
                    raise ReadError(
                        f"{path}: its part {entry.filename} declares a document type, which Word files never do; it is not read"
                    )


def _styles(word: Any) -> dict[str, tuple[int, bool]]:
    """For each style id its heading level (0: none) and whether it is a list."""
    found: dict[str, tuple[int, bool]] = {}
    for style in word.styles:
        name = style.name or ""
        match = _HEADING_STYLE.match(name)
        outline = style.element.find(f"{_W}pPr/{_W}outlineLvl")
        level = 1 if name == "Title" else int(match[1]) if match else _outline(outline)
        found[style.style_id] = (level, name.startswith("List ") and not match)
    return found


def _outline(element: Any) -> int:
    value = -1 if element is None else int(element.get(f"{_W}val", "9"))
    return value + 1 if 0 <= value < 9 else 0  # 9 means body text


def _blocks(parent: Any, styles: dict[str, tuple[int, bool]]) -> Iterator[str]:
    items: list[str] = []
    for kind, block in _parts(parent, styles):
        if kind == "item":
            items.append(block)
            continue
        if items:
            yield "\n".join(items)
            items = []
        yield block
    if items:
        yield "\n".join(items)


def _parts(parent: Any, styles: dict[str, tuple[int, bool]]) -> Iterator[tuple[str, str]]:
    for child in parent:
        if child.tag == f"{_W}p":
            yield from _paragraph(child, styles)
        elif child.tag == f"{_W}tbl":
            rows = [[_cell(cell) for cell in row.findall(f"{_W}tc")] for row in _rows(child)]
            only = rows[0][0] if len(rows) == 1 and len(rows[0]) == 1 else ""  # a frame around text, not a table
            block = markup.paragraph(only) if only else markup.table(rows)
            if block:
                yield "table", block
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
            yield from _parts(child, styles)


def _paragraph(element: Any, styles: dict[str, tuple[int, bool]]) -> Iterator[tuple[str, str]]:
    text = _text(element).strip()
    if not text:
        return
    properties = element.find(f"{_W}pPr")
    style = None if properties is None else properties.find(f"{_W}pStyle")
    level, listed = styles.get("" if style is None else style.get(f"{_W}val", ""), (0, False))
    numbering = None
    if properties is not None:
        numbering = properties.find(f"{_W}numPr")
        level = _outline(properties.find(f"{_W}outlineLvl")) or level
    if level:
        yield "heading", markup.heading(level, text)
    elif listed or numbering is not None:
        depth = None if numbering is None else numbering.find(f"{_W}ilvl")
        yield "item", markup.indent(text, "  " * (0 if depth is None else min(int(depth.get(f"{_W}val", "0")), 8)) + "- ")
    else:
        yield "paragraph", markup.paragraph(text)


def _rows(table: Any) -> list[Any]:
    return [*table.findall(f"{_W}tr"), *table.findall(f"{_W}sdt/{_W}sdtContent/{_W}tr")]


def _cell(cell: Any) -> str:
    return "\n".join(filter(None, (_text(paragraph).strip() for paragraph in cell.iter(f"{_W}p"))))


def _text(element: Any) -> str:
    """The text of a paragraph as a reader sees it: insertions in, deletions out."""
    parts: list[str] = []
    for child in element:
        if child.tag == f"{_W}t":
            parts.append(child.text or "")
        elif child.tag in _SIGNS:
            parts.append(_SIGNS[child.tag])
        elif child.tag not in _NOT_TEXT:
            parts.append(_text(child))
    return "".join(parts)
