"""Markdown, with optional YAML front matter."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import MappingProxyType

from rag.core.errors import ReadError
from rag.core.types import Document, Scalar
from retrievers.chunkers.outline import first_heading
from retrievers.readers.encoding import clean, decode
from retrievers.readers.metadata import scalar
from retrievers.readers.sniff import refuse_binary
from retrievers.readers.source import Content

_FRONT = re.compile(r"---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_MAX_FRONT = 64_000
_MAX_DEPTH = 20


def read_markdown(content: Content) -> Iterator[Document]:
    """Yield the one document of a Markdown file, its front matter as metadata and not as text.

    The title is the front matter's ``title``, else the first heading, else the file's stem. Raises `ReadError` for binary or undecodable
    bytes and for front matter that is not YAML or uses anchors.
    """
    path = str(content.path)
    refuse_binary(content.data, path)
    text = clean(decode(content.data, path))
    metadata, start = _front_matter(text, path)
    body = text[start:]
    title = metadata.pop("title", None) or first_heading(body) or content.path.stem
    if not body.strip():
        raise ReadError(f"{path}: has no text{' below its front matter' if start else ''}")
    yield Document(content.id, body, str(title), content.path.as_posix(), "markdown", MappingProxyType(metadata))


def _front_matter(text: str, path: str) -> tuple[dict[str, Scalar], int]:
    """The front matter's values and where the text after it begins; ({}, 0) if the file has none (a rule of dashes is text)."""
    match = _FRONT.match(text)
    if match is None or not match[1]:
        return {}, 0
    if len(match[1]) > _MAX_FRONT:
        return {}, 0
    import yaml

    try:
        depth = 0
        for event in yaml.parse(match[1], Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):  # a value that may itself hold aliases: ten lines can spell gigabytes
                raise ReadError(f"{path}: the front matter uses a YAML alias (*name); write the value out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:  # the parser's time grows with the square of the depth
                raise ReadError(f"{path}: the front matter nests values more than {_MAX_DEPTH} deep; simplify it")
        values = yaml.safe_load(match[1])
        if not isinstance(values, dict):
            return {}, 0
        return {clean(str(key)): scalar(value) for key, value in values.items()}, match.end()
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, AttributeError) as error:
        if isinstance(error, ReadError):
            raise
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 2})" if mark else ""
        reason = getattr(error, "problem", None) or type(error).__name__
        raise ReadError(f"{path}: the front matter is not valid YAML{where}: {reason}; quote values that hold ': ' or '#'") from error
