"""The SQLite file of a corpus: its schema, its connections, and everything that is read from it.

It is the one commit point. Segment folders only count once a row of ``segments`` names them.
"""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from rag.core.errors import CorpusDamaged, CorpusError, CorpusMismatch, CorpusNotFound
from rag.core.types import Passage
from retrievers.corpus.manifest import FORMAT, DocumentRecord, Manifest, Part, SegmentRecord

DATABASE = "corpus.sqlite3"

SCHEMA = """
CREATE TABLE documents (id TEXT PRIMARY KEY, title TEXT NOT NULL, source TEXT NOT NULL, format TEXT NOT NULL, metadata TEXT NOT NULL,
    root TEXT NOT NULL, hash TEXT NOT NULL, passages INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX documents_root ON documents (root);
CREATE TABLE passages (rowid INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, document TEXT NOT NULL, ordinal INTEGER NOT NULL,
    text TEXT NOT NULL, title TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, metadata TEXT NOT NULL, crc INTEGER NOT NULL);
CREATE INDEX passages_document ON passages (document);
CREATE TABLE segments (name TEXT PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, passages INTEGER NOT NULL,
    kind TEXT NOT NULL, files TEXT NOT NULL);
CREATE TABLE tombstones (rowid INTEGER PRIMARY KEY);
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

_DOCUMENT = "SELECT id, title, source, format, metadata, root, hash, passages FROM documents"
_COLUMNS = "rowid, id, text, document, title, start, stop, metadata, crc"
_NO_METADATA: MappingProxyType[str, Any] = MappingProxyType({})


def checksum(id: str, text: str, document: str, title: str, start: int, stop: int, metadata: str) -> int:
    """CRC-32 over a stored passage: SQLite itself does not notice a flipped bit inside a text."""
    return zlib.crc32("\0".join((id, text, document, title, str(start), str(stop), metadata)).encode())


def connect(folder: Path, *, read_only: bool) -> sqlite3.Connection:
    """Open the SQLite file of ``folder``. Raises `CorpusNotFound` or `CorpusDamaged`."""
    path = folder / DATABASE
    if not path.is_file():
        raise CorpusNotFound(f"{folder}: there is no corpus here (no {DATABASE}); build one with `rag index` or Corpus.create")
    mode = "ro" if read_only else "rw"
    if read_only and not os.access(folder, os.W_OK) and not (folder / f"{DATABASE}-wal").exists():
        mode = "ro&immutable=1"  # a read-only medium cannot hold the shared memory that the write-ahead log needs
    uri = f"{path.resolve().as_uri()}?mode={mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=30)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("SELECT 1 FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        connection.close()
        raise damaged(path, error) from error
    return connection


def damaged(path: Path, error: object) -> CorpusDamaged:
    """The error for a SQLite file that cannot be read."""
    return CorpusDamaged(f"{path}: SQLite cannot read it ({error}); restore the corpus from a copy, or delete it and index again")


class Store:
    """Reads the SQLite file. One connection per process, shared by its threads under a lock."""

    def __init__(self, folder: Path, *, read_only: bool) -> None:
        self.folder = folder
        self.read_only = read_only
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for this thread alone. Turns what SQLite says about a broken file into `CorpusDamaged`."""
        with self._lock:
            try:
                yield self._connect()
            except sqlite3.OperationalError as error:
                raise CorpusError(f"{self.folder / DATABASE}: {error}") from error
            except sqlite3.DatabaseError as error:
                raise damaged(self.folder / DATABASE, error) from error

    def close(self) -> None:
        """Close the connection; the next read opens it again."""
        with self._lock:
            if self._connection is not None and self._process == os.getpid():
                self._connection.close()
            self._connection = None

    @contextmanager
    def session(self) -> Iterator[Store]:
        """Everything read inside is of one commit; the connection is closed at the end."""
        with self._lock:
            try:
                with self.reading() as connection:
                    connection.execute("BEGIN")
                yield self
            finally:
                self.close()

    def generation(self) -> int:
        """Counts the commits, those of other processes included. A few microseconds."""
        with self.reading() as connection:
            row = connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()
        return int(row[0])

    def state(self) -> tuple[int, list[SegmentRecord], np.ndarray]:
        """Generation, segments in row order, and the dead row ids (ascending), all of one commit."""
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                generation = int(connection.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0])
                segments = self._segments(connection)
                dead = np.fromiter((row[0] for row in connection.execute("SELECT rowid FROM tombstones ORDER BY rowid")), np.int64)
            finally:
                connection.execute("COMMIT")
        return generation, segments, dead

    def manifest(self) -> Manifest:
        """What the corpus says about itself."""
        with self.reading() as connection:
            connection.execute("BEGIN")
            try:
                meta = dict(connection.execute("SELECT key, value FROM meta"))
                segments = tuple(self._segments(connection))
                documents, tombstones = (connection.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("documents", "tombstones"))
            finally:
                connection.execute("COMMIT")
        return Manifest(
            format=int(meta["format"]),
            generation=int(meta["generation"]),
            encoder=Part.parse(meta["encoder"]),
            dim=int(meta["dim"]),
            analyzer=Part.parse(meta["analyzer"]),
            chunker=Part.parse(meta["chunker"]),
            index=meta["index"],
            documents=documents,
            passages=sum(s.passages for s in segments) - tombstones,
            tombstones=tombstones,
            segments=segments,
        )

    def passages(self, rowids: Sequence[int]) -> list[tuple[int, Passage]]:
        """The live passages among ``rowids`` with their row ids. Raises `CorpusDamaged` if a checksum fails."""
        with self.reading() as connection:
            query = f"SELECT {_COLUMNS} FROM passages WHERE rowid IN (SELECT value FROM json_each(?))"
            rows = connection.execute(query, (json.dumps(list(rowids)),)).fetchall()
        return [(row[0], self._passage(row)) for row in rows]

    def each_passage(self, document: str | None = None, page: int = 2000) -> Iterator[tuple[int, Passage]]:
        """All live passages (of one document), by row id. Read page by page: a commit in between is seen, a page is of one state."""
        last = 0
        while True:
            where, values = ("AND document = ?", (last, document, page)) if document is not None else ("", (last, page))
            with self.reading() as connection:
                query = f"SELECT {_COLUMNS} FROM passages WHERE rowid > ? {where} ORDER BY rowid LIMIT ?"
                rows = connection.execute(query, values).fetchall()
            if not rows:
                return
            for row in rows:
                yield row[0], self._passage(row)
            last = rows[-1][0]

    def documents(self, after: str = "", page: int = 2000) -> Iterator[DocumentRecord]:
        """All documents whose ids come after ``after``, by id, page by page."""
        last = after
        while True:
            with self.reading() as connection:
                rows = connection.execute(f"{_DOCUMENT} WHERE id > ? ORDER BY id LIMIT ?", (last, page)).fetchall()
            if not rows:
                return
            yield from map(_record, rows)
            last = rows[-1][0]

    def document(self, id: str) -> DocumentRecord | None:
        """The document of that id; None if there is none."""
        with self.reading() as connection:
            row = connection.execute(f"{_DOCUMENT} WHERE id = ?", (id,)).fetchone()
        return None if row is None else _record(row)

    def select(self, condition: str, values: Sequence[Any]) -> np.ndarray:
        """Row ids (ascending) of the passages that meet a compiled filter."""
        with self.reading() as connection:
            rows = connection.execute(f"SELECT rowid FROM passages AS p WHERE {condition} ORDER BY rowid", tuple(values))
            return np.fromiter((row[0] for row in rows), np.int64)

    def check_integrity(self) -> None:
        """Let SQLite check its own structure. Raises `CorpusDamaged`."""
        with self.reading() as connection:
            found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if found != "ok":
            raise damaged(self.folder / DATABASE, found)

    def _connect(self) -> sqlite3.Connection:
        if self._connection is None or self._process != os.getpid():  # SQLite connections do not survive a fork
            connection = connect(self.folder, read_only=self.read_only)
            try:
                check_format(connection, self.folder)
            except BaseException:
                connection.close()
                raise
            self._connection, self._process = connection, os.getpid()
        return self._connection

    def _segments(self, connection: sqlite3.Connection) -> list[SegmentRecord]:
        rows = connection.execute("SELECT name, passages, first, last, kind, files FROM segments ORDER BY first")
        return [SegmentRecord.parse(row) for row in rows]

    def _passage(self, row: tuple[Any, ...]) -> Passage:
        _, id, text, document, title, start, stop, metadata, crc = row
        if checksum(id, text, document, title, start, stop, metadata) != crc:
            raise damaged(self.folder / DATABASE, f"the checksum of passage {id!r} is wrong")
        return Passage(id, text, document, title, start, stop, _NO_METADATA if metadata == "{}" else MappingProxyType(json.loads(metadata)))


def check_format(connection: sqlite3.Connection, folder: Path) -> None:
    """Refuse a file without our tables (`CorpusNotFound`) or of a newer version (`CorpusMismatch`)."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "meta" not in tables:
        raise CorpusNotFound(f"{folder}: a corpus was begun here and never finished; build it with `rag index` or Corpus.create")
    found = connection.execute("SELECT value FROM meta WHERE key = 'format'").fetchone()
    if found is None or not found[0].isdigit():
        raise damaged(folder / DATABASE, "its format version is missing")
    if int(found[0]) != FORMAT:
        raise CorpusMismatch(f"{folder}: format version {found[0]}, but this release of graft reads {FORMAT}: update graft, or index again")


def _record(row: Sequence[Any]) -> DocumentRecord:
    id, title, source, format, metadata, root, digest, passages = row
    return DocumentRecord(id, title, source, format, MappingProxyType(json.loads(metadata)), root, digest, passages)
