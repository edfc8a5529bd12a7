"""What a corpus says about itself: its segments with their checksums, and what built it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rag.core.errors import CorpusDamaged

FORMAT = 1
"""Version of the layout on disk. A reader refuses a newer one."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """One file of a segment: its size in bytes and its SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One immutable folder of arrays.

    It holds the passages whose row ids lie in [first, last] (no other segment's range overlaps), ``passages`` of them, dead ones
    included. ``kind`` names the vector index inside: "none" (no vectors), "flat" (exact), "hnsw", "ivf-sq8" or "ivf-pq".
    """

    name: str
    passages: int
    first: int
    last: int
    kind: str
    files: Mapping[str, FileRecord]

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(file.bytes for file in self.files.values())

    def files_json(self) -> str:
        """The file table, as the segments table stores it."""
        return json.dumps({name: asdict(file) for name, file in sorted(self.files.items())})

    @staticmethod
    def parse(row: tuple[Any, ...]) -> SegmentRecord:
        """Read a row (name, passages, first, last, kind, files) of the segments table."""
        name, passages, first, last, kind, text = row
        if not str(name).isdecimal():  # it becomes a folder name, and folders are deleted after a merge
            raise CorpusDamaged(f"the manifest names a segment {str(name)[:80]!r}; a segment's name is a number: index again")
        files = {file: FileRecord(int(entry["bytes"]), str(entry["sha256"])) for file, entry in json.loads(text).items()}
        return SegmentRecord(name, passages, first, last, kind, files)


@dataclass(frozen=True, slots=True)
class Part:
    """A component that built the corpus: its identity and, if it is registered, the name and arguments to build it again."""

    identity: str = ""
    component: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> str:
        """As the meta table stores it."""
        return json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)

    @staticmethod
    def parse(text: str) -> Part:
        """Read what `json` wrote."""
        return Part(**json.loads(text))


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole of it at one commit. ``generation`` counts the commits."""

    format: int
    generation: int
    encoder: Part
    dim: int
    analyzer: Part
    chunker: Part
    index: str
    documents: int
    passages: int
    tombstones: int
    segments: tuple[SegmentRecord, ...]


@dataclass(frozen=True, slots=True)
class DocumentRecord:
    """A document as the corpus keeps it: everything but its text, which lives in its passages."""

    id: str
    title: str
    source: str
    format: str
    metadata: Mapping[str, Any]
    root: str
    hash: str
    passages: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call to `Corpus.add` did, in documents; ``passages`` counts those written and ``skipped`` documents without any text."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    skipped: int = 0
    passages: int = 0
    seconds: float = 0.0
