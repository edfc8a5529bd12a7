"""HTML pages as Markdown: headings, lists, tables and code stay, navigation and everything invisible goes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from typing import Any

from rag.core.errors import MissingDependency, ReadError
from rag.core.types import Document
from retrievers.readers import markup
from retrievers.readers.encoding import clean, declared, decode
from retrievers.readers.sniff import refuse_binary
from retrievers.readers.source import Content

_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([\w:.-]{1,40})|<\?xml[^>]{0,200}?encoding\s*=\s*["']([\w:.-]{1,40})""", re.I
)
_INVISIBLE = frozenset(
    {"head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "embed", "canvas", "audio", "video"}
    | {"select", "input", "button", "textarea"}
)
_FURNITURE = frozenset({"nav", "footer"})
_FURNITURE_ROLES = frozenset({"navigation", "banner", "contentinfo", "search"})
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0(?![.\d])", re.IGNORECASE)
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_BLOCKS = _HEADINGS.union(
    {"address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "div", "dl", "dt", "fieldset"},
    {"figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "html", "legend", "li", "main", "nav", "ol"},
    {"p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th", "thead", "tr", "ul"},
)
_SPACE = re.compile(r"[ \t\n\r\f]+")


def read_html(content: Content) -> Iterator[Document]:
    """Yield the one document of an HTML page, as Markdown.

    The text is that of ``<main>`` (or of the only ``<article>``) if the page has one, else of the body; where that holds only
    navigation, all that is visible. The title is ``<title>``, else the first ``<h1>``, else the file's stem. Raises `ReadError` for
    binary or undecodable bytes, for a page without text and for one nested beyond the parser's limit.
    """
    path = str(content.path)
    refuse_binary(content.data, path)
    declaration = _CHARSET.search(content.data[:4096])
    encoding = (declaration[1] or declaration[2]).decode() if declaration else ""
    text = (declared(content.data, encoding) if encoding and b"\0" not in content.data else None) or decode(content.data, path)
    page = _parse(clean(text), path)
    body = page.find("body")
    body = page if body is None else body
    rendered = (("\n\n".join(_Renderer(furniture).blocks(root))) for root, furniture in ((_main(body), False), (body, False), (body, True)))
    markdown = next((result for result in rendered if result.strip()), "")
    if not markdown:
        raise ReadError(f"{path}: has no text (a page that a script draws in the browser? save it as rendered)")
    title = next(
        (found for found in map(_plain, page.xpath("//head/title | //title[not(ancestor::svg)] | //h1")) if found), content.path.stem
    )
    yield Document(content.id, clean(markdown), clean(title), content.path.as_posix(), "markdown")


def _parse(text: str, path: str) -> Any:
    try:
        html: Any = importlib.import_module("lxml.html")
        etree: Any = importlib.import_module("lxml.etree")
    except ImportError as error:
        raise MissingDependency("reading HTML needs lxml; pip install 'graft-rag'") from error
    parser = html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    try:
        page = html.document_fromstring(text.encode(), parser=parser)
    except (etree.LxmlError, ValueError, AssertionError) as error:
        raise ReadError(f"{path}: is not HTML ({error})") from error
    limits = [entry.message for entry in parser.error_log if entry.type_name == "ERR_RESOURCE_LIMIT"]
    if limits:  # the parser drops what lies beyond its limits and goes on
        raise ReadError(f"{path}: is nested too deeply to be read whole ({limits[0].partition(',')[0].lower()})")
    return page


def _main(body: Any) -> Any:
    for query in (".//main | .//*[@role='main']", ".//article"):
        found = body.xpath(query)
        if len(found) == 1:
            return found[0]
    return body


def _plain(element: Any) -> str:
    return _SPACE.sub(" ", element.text_content()).strip()


class _Renderer:
    """Writes an element as Markdown blocks; ``furniture`` keeps navigation and footers."""

    def __init__(self, furniture: bool) -> None:
        self.furniture = furniture

    def blocks(self, element: Any) -> Iterator[str]:
        """Yield the blocks inside ``element``; text between them is a paragraph of its own."""
        line = [element.text or ""]
        for child in element:
            if self._shown(child):
                if child.tag in _BLOCKS or any(d.tag in _BLOCKS for d in child.iterdescendants()):
                    yield from _as_paragraph(line)
                    line = []
                    yield from self._block(child)
                else:
                    line.append(self._inline(child))
            line.append(child.tail or "")
        yield from _as_paragraph(line)

    def _block(self, element: Any) -> Iterator[str]:
        tag = element.tag
        if tag in _HEADINGS:
            title = _tidy(self._inline(element))
            if title:
                yield markup.heading(int(tag[1]), title)
        elif tag == "pre":
            text = element.text_content()
            if text.strip():
                yield markup.code(text)
        elif tag in ("ul", "ol"):
            yield from self._list(element, ordered=tag == "ol")
        elif tag == "table" and not _is_layout(element):
            yield from filter(None, [markup.table(self._rows(element))])
        elif tag == "blockquote":
            inside = "\n\n".join(self.blocks(element))
            if inside:
                yield "\n".join(f"> {line}" if line else ">" for line in inside.split("\n"))
        else:
            yield from self.blocks(element)

    def _list(self, element: Any, ordered: bool) -> Iterator[str]:
        items = ["\n".join(self.blocks(item)) for item in element if self._shown(item)]
        items = [item for item in items if item]
        if items:
            yield "\n".join(markup.indent(item, f"{n}. " if ordered else "- ") for n, item in enumerate(items, 1))

    def _rows(self, element: Any) -> list[list[str]]:
        rows = element.xpath("./tr | ./thead/tr | ./tbody/tr | ./tfoot/tr")
        return [
            [" ".join(self.blocks(cell)) for cell in row if cell.tag in ("td", "th") and self._shown(cell)]
            for row in rows
            if self._shown(row)
        ]

    def _inline(self, element: Any) -> str:
        if element.tag == "br":
            return "\v"  # survives the folding of white space
        if element.tag == "img":
            return element.get("alt") or ""
        parts = [element.text or ""]
        for child in element:
            if self._shown(child):
                parts.append(f" {self._inline(child)} " if child.tag in _BLOCKS else self._inline(child))
            parts.append(child.tail or "")
        return "".join(parts)

    def _shown(self, element: Any) -> bool:
        tag = element.tag
        if not isinstance(tag, str) or tag in _INVISIBLE or element.get("hidden") is not None or element.get("aria-hidden") == "true":
            return False
        if _HIDDEN_STYLE.search(element.get("style") or ""):
            return False
        return self.furniture or (tag not in _FURNITURE and element.get("role") not in _FURNITURE_ROLES)


def _is_layout(element: Any) -> bool:
    return (
        element.get("role") == "presentation"
        or bool(element.xpath(".//table | .//h1 | .//h2 | .//h3 | .//pre"))
        or len(element.xpath(".//td | .//th")) < 2
    )


def _tidy(text: str) -> str:
    return "\n".join(_SPACE.sub(" ", line).strip() for line in text.split("\v")).strip()


def _as_paragraph(parts: list[str]) -> Iterator[str]:
    text = _tidy("".join(parts))
    if text:
        yield markup.paragraph(text)
