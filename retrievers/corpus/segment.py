"""One immutable folder of arrays: how it is written, and how it is read back with its checksums."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rag.core.errors import CorpusDamaged, CorpusError
from retrievers.corpus import durable
from retrievers.corpus.manifest import FileRecord, SegmentRecord
from retrievers.corpus.postings import Postings

ROWIDS, VECTORS, INDEX = "passages.npy", "vectors.npy", "index.faiss"
TERMS, INDPTR, DOCS, COUNTS, LENGTHS = "terms.txt", "terms.indptr.npy", "terms.docs.npy", "terms.counts.npy", "terms.lengths.npy"

_MAP_FROM = 1 << 16
"""Bytes from which a file is mapped instead of read: many small segments should not use up the process's maps."""


class SegmentVanished(CorpusError):
    """A file of the segment is gone: a writer merged it away (load a fresh snapshot), or someone deleted it (the corpus is damaged)."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


@dataclass(frozen=True, slots=True)
class Columns:
    """Postings ready to be written: terms, their index pointer, the tokens per passage, and the columns as (docs, counts) blocks."""

    terms: list[str]
    indptr: np.ndarray
    lengths: np.ndarray
    counts_dtype: str
    blocks: Iterable[tuple[np.ndarray, np.ndarray]]

    @staticmethod
    def of(postings: Postings) -> Columns:
        """The columns of postings that are in memory."""
        blocks = [(postings.docs, postings.counts)]
        return Columns(postings.terms, postings.indptr, postings.lengths, postings.counts.dtype.str, blocks)


@dataclass(frozen=True, slots=True)
class Content:
    """What goes into a segment: ascending row ids, vectors in blocks (None without an encoder), columns, and who adds a vector index."""

    rowids: np.ndarray
    dim: int
    vectors: Iterable[np.ndarray] | None
    columns: Columns
    index: Callable[[Path], str] | None = None
    """Given the folder with its vectors, writes ``index.faiss`` into it and returns the kind."""


def write_segment(parent: Path, name: str, content: Content) -> SegmentRecord:
    """Write segment ``name`` below ``parent`` and flush it. It exists for readers only once the store has its record."""
    folder = parent / f"{durable.TEMPORARY}{name}"
    durable.remove(folder)
    folder.mkdir()
    try:
        durable.write_array(folder / ROWIDS, content.rowids)
        kind = "none"
        if content.vectors is not None:
            kind = "flat"
            with durable.ArrayFile(folder / VECTORS, "<f4", (len(content.rowids), content.dim)) as vectors:
                for block in content.vectors:
                    vectors.append(block)
        _write_columns(folder, content.columns)
        if content.index is not None:
            kind = content.index(folder)
        files = {path.name: FileRecord(path.stat().st_size, durable.sha256(path)) for path in sorted(folder.iterdir())}
        durable.publish(folder, parent / name)
    except BaseException:
        durable.remove(folder)
        raise
    rowids = content.rowids
    return SegmentRecord(name, len(rowids), int(rowids[0]), int(rowids[-1]), kind, files)


def _write_columns(folder: Path, columns: Columns) -> None:
    durable.write(folder / TERMS, "\n".join(columns.terms).encode())
    durable.write_array(folder / INDPTR, columns.indptr)
    durable.write_array(folder / LENGTHS, columns.lengths)
    size = (int(columns.indptr[-1]),)
    with (
        durable.ArrayFile(folder / DOCS, "<i4", size) as docs,
        durable.ArrayFile(folder / COUNTS, columns.counts_dtype, size) as counts,
    ):
        for block_docs, block_counts in columns.blocks:
            docs.append(block_docs)
            counts.append(block_counts)


class Segment:
    """A committed segment on disk. Sizes are checked when it is opened, a checksum when its file is first used (once per open)."""

    def __init__(self, parent: Path, record: SegmentRecord) -> None:
        self.record = record
        self.folder = parent / record.name
        self._verified: set[str] = set()
        self._lock = threading.Lock()
        for name, file in record.files.items():
            path = self.folder / name
            try:
                size = path.stat().st_size
            except FileNotFoundError:
                raise SegmentVanished(path) from None
            if size != file.bytes:
                raise CorpusDamaged(_damage(path, f"it has {size} bytes where the manifest says {file.bytes}"))
        self.rowids = np.asarray(self._array(ROWIDS))

    def file(self, name: str) -> Path:
        """The path of a file whose checksum has been verified. Raises `CorpusDamaged`."""
        path = self.folder / name
        with self._lock:
            if name not in self._verified:
                try:
                    found = durable.sha256(path)
                except FileNotFoundError:
                    raise SegmentVanished(path) from None
                expected = self.record.files[name].sha256
                if found != expected:
                    raise CorpusDamaged(_damage(path, f"its SHA-256 is {found} where the manifest says {expected}"))
                self._verified.add(name)
        return path

    def vectors(self) -> np.ndarray:
        """Unit rows, float32 [passages, dim], mapped from the file."""
        return self._array(VECTORS)

    def vector_blocks(self, keep: np.ndarray | None, rows: int = 8192) -> Iterator[np.ndarray]:
        """The vectors where ``keep`` is true (None: all), read block by block; unlike a map it leaves no pages in this process."""
        path = self.file(VECTORS)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise SegmentVanished(path) from None
        with file:
            np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
            (total, dim), _, dtype = np.lib.format.read_array_header_1_0(file)  # type: ignore[no-untyped-call]
            for start in range(0, total, rows):
                size = min(rows, total - start)
                block = np.frombuffer(file.read(size * dim * dtype.itemsize), dtype).reshape(size, dim)
                yield block if keep is None else block[keep[start : start + size]]

    def postings(self) -> Postings:
        """The term frequencies, mapped from the files; only the vocabulary is read into memory."""
        text = self._read(TERMS).decode()
        terms = text.split("\n") if text else []
        return Postings(terms, self._array(INDPTR), self._array(DOCS), self._array(COUNTS), self._array(LENGTHS))

    def verify(self) -> None:
        """Check every file anew. Raises `CorpusDamaged`."""
        with self._lock:
            self._verified.clear()
        for name in self.record.files:
            self.file(name)

    def _array(self, name: str) -> np.ndarray:
        path = self.file(name)
        try:
            small = self.record.files[name].bytes < _MAP_FROM
            array: np.ndarray = np.load(path, mmap_mode=None if small else "r", allow_pickle=False)
        except FileNotFoundError:
            raise SegmentVanished(path) from None
        except ValueError as error:
            raise CorpusDamaged(_damage(path, f"it is no plain NumPy array ({error})")) from error
        return array

    def _read(self, name: str) -> bytes:
        path = self.file(name)
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise SegmentVanished(path) from None


def _damage(path: Path, reason: str) -> str:
    return f"{path}: {reason}: the disk failed or something else wrote to it; restore a copy, or delete the corpus and index again"
