"""Passages of Markdown, section by section."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from rag.core.registry import component
from rag.core.types import Document, Passage
from retrievers.chunkers.budget import budget_of, identity_of, passage_of
from retrievers.chunkers.outline import Block, blocks
from retrievers.chunkers.units import Count, Unit, line_units, sentence_units, windows

_SEPARATOR = " › "


@dataclass(slots=True)
class _Section:
    """A heading and what stands below it, up to the next heading. ``path`` holds the headings above it and its own."""

    path: tuple[str, ...]
    level: int = 0
    blocks: list[Block] = field(default_factory=list)
    empty: bool = True


@component
class MarkdownChunker:
    """Cuts at headings, then packs as `SentenceChunker` does. A passage's title is its path: "Handbook › Suits › Care".

    No passage crosses a heading, but a heading without text of its own goes with its first sub-section. Fenced code and tables stay
    whole where they fit into ``max_tokens``, else they are cut between lines. The arguments and errors are those of `SentenceChunker`.
    """

    def __init__(self, max_tokens: int = 200, overlap: int = 1, tokenizer: Count | None = None) -> None:
        self.max_tokens = max_tokens
        self.overlap = overlap
        self.tokenizer = tokenizer
        self._budget = budget_of(self, max_tokens, overlap, tokenizer)

    @property
    def identity(self) -> str:
        """Class and arguments."""
        return identity_of(self, self.max_tokens, self.overlap, self.tokenizer)

    def chunk(self, document: Document) -> list[Passage]:
        """Return the passages of ``document`` in order; a blank document has none."""
        passages: list[Passage] = []
        for section in _sections(document.text):
            title = _title(document.title, section.path)
            units = [unit for block in section.blocks for unit in self._units(document.text, block)]
            for window in windows(units, self._budget.max_tokens, self._budget.overlap):
                passage = passage_of(document, len(passages), window, title)
                if passage is not None:
                    passages.append(passage)
        return passages

    def _units(self, text: str, block: Block) -> Iterator[Unit]:
        cut = sentence_units if block.kind == "prose" else line_units
        return cut(text, block.start, block.end, self._budget.max_tokens, self._budget.count)


def _sections(text: str) -> Iterator[_Section]:
    section = _Section(())
    headings: list[tuple[int, str]] = []
    for block in blocks(text):
        if block.kind != "heading":
            section.blocks.append(block)
            section.empty = section.empty and not text[block.start : block.end].strip()
            continue
        while headings and headings[-1][0] >= block.level:
            headings.pop()
        headings.append((block.level, block.title))
        path = tuple(title for _, title in headings if title)
        if section.empty and block.level > section.level:  # a bare heading alone would be a passage that says nothing
            section.path, section.level = path, block.level
        else:
            yield section
            section = _Section(path, block.level)
        section.blocks.append(block)
    yield section


def _title(document: str, path: tuple[str, ...]) -> str:
    if path and document.casefold().startswith(path[0].casefold()):  # "Getting there | Handbook" over the heading "Getting there"
        path = path[1:]
    return _SEPARATOR.join((document, *path) if document else path)
