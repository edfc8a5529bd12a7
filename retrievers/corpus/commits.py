"""The SQLite transactions that change a corpus. Each one is a commit: afterwards all of it holds, before it nothing does."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from rag.core.errors import CorpusError, InputError
from rag.core.types import Document, Passage
from retrievers.corpus import durable
from retrievers.corpus.manifest import FORMAT, Part, SegmentRecord
from retrievers.corpus.store import DATABASE, SCHEMA, check_format, checksum, connect, damaged


@dataclass(frozen=True, slots=True)
class Entry:
    """A document that is about to be written, with its passages. ``replaces`` says that an older version is there."""

    document: Document
    digest: str
    root: str
    passages: list[Passage]
    replaces: bool


@dataclass(slots=True)
class Batch:
    """What one commit writes. ``touched`` are (source, root, id) of unchanged documents that came from elsewhere this time."""

    entries: dict[str, Entry] = field(default_factory=dict)
    touched: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    size: int = 0

    def add(self, entry: Entry) -> None:
        """Take in one document."""
        self.entries[entry.document.id] = entry
        self.size += max(1, len(entry.passages))

    def passages(self) -> list[Passage]:
        """All passages in order."""
        return [passage for entry in self.entries.values() for passage in entry.passages]


def create_database(folder: Path, encoder: Part, dim: int, analyzer: Part, chunker: Part, index: str) -> None:
    """Write the schema and the identity of a new corpus, in one transaction."""
    path = folder / DATABASE
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        for statement in SCHEMA.strip().split(";"):
            if statement.strip():
                connection.execute(statement)
        meta = {"format": str(FORMAT), "generation": "0", "segment": "0", "encoder": encoder.json(), "dim": str(dim)}
        meta |= {"analyzer": analyzer.json(), "chunker": chunker.json(), "index": index}
        connection.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        durable.commit(connection)
    except sqlite3.OperationalError as error:
        raise CorpusError(f"{path}: {error}; the corpus was not created") from error
    except sqlite3.DatabaseError as error:
        raise damaged(path, error) from error
    finally:
        connection.close()
    durable.flush(folder)


class Commits:
    """The writing connection. Use it from one thread, with the corpus locked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._connection = connect(folder, read_only=False)
        check_format(self._connection, folder)
        self._connection.execute("PRAGMA temp_store = DEFAULT")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything inside is one commit, which also counts the generation up."""
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
            connection.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
            durable.commit(connection)
        except BaseException:
            with suppress(sqlite3.Error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
            raise

    def meta(self, key: str) -> str:
        """One value of the meta table."""
        return str(self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0])

    def segments(self) -> list[SegmentRecord]:
        """The committed segments in row order."""
        rows = self._connection.execute("SELECT name, passages, first, last, kind, files FROM segments ORDER BY first")
        return [SegmentRecord.parse(row) for row in rows]

    def tombstones(self) -> list[int]:
        """The dead row ids, ascending."""
        return [row[0] for row in self._connection.execute("SELECT rowid FROM tombstones ORDER BY rowid")]

    def next_rowid(self) -> int:
        """The row id that the next passage gets; those of deleted passages are never given again."""
        row = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'passages'").fetchone()
        return int(row[0]) + 1 if row else 1

    def known(self, id: str) -> tuple[str, str, str, int] | None:
        """(hash, source, root, passages) of a document, or None if there is none."""
        row = self._connection.execute("SELECT hash, source, root, passages FROM documents WHERE id = ?", (id,)).fetchone()
        return (row[0], row[1], row[2], row[3]) if row else None

    def write(self, batch: Batch, first: int, segment: SegmentRecord | None) -> list[str]:
        """Commit a batch whose passages have the row ids ``first``, ``first`` + 1, …; return the names of segments that died by it."""
        try:
            with self.transaction() as connection:
                gone = _bury(connection, [id for id, entry in batch.entries.items() if entry.replaces])
                connection.executemany("UPDATE documents SET source = ?, root = ? WHERE id = ?", batch.touched.values())
                connection.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(_document_row, batch.entries.values()))
                rows = _passage_rows(batch.entries.values(), first)
                connection.executemany("INSERT INTO passages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
                if segment is not None:
                    _add_segment(connection, segment)
        except sqlite3.IntegrityError as error:
            raise InputError(f"{self._clash(batch)} ({error}); give every passage an id of its own") from error
        return gone

    def delete(self, ids: Sequence[str]) -> tuple[int, list[str]]:
        """Commit the deletion of documents; return how many there were and the names of segments that died by it."""
        with self.transaction() as connection:
            found = [id for id in ids if connection.execute("SELECT 1 FROM documents WHERE id = ?", (id,)).fetchone()]
            gone = _bury(connection, found)
        return len(found), gone

    def replace(self, old: Sequence[SegmentRecord], new: SegmentRecord | None, index: str | None = None) -> None:
        """Commit a merge: ``new`` (None if nothing of them is alive) takes the place of ``old``."""
        with self.transaction() as connection:
            for record in old:
                _drop_segment(connection, record.name, record.first, record.last)
            if new is not None:
                _add_segment(connection, new)
            if index is not None:
                connection.execute("UPDATE meta SET value = ? WHERE key = 'index'", (index,))

    def set_chunker(self, chunker: Part) -> None:
        """Remember another chunker. It only concerns documents that are added from now on."""
        if self.meta("chunker") != chunker.json():
            with self.transaction() as connection:
                connection.execute("UPDATE meta SET value = ? WHERE key = 'chunker'", (chunker.json(),))

    def begin_run(self) -> None:
        """Forget which documents an earlier run has seen. The list lives in SQLite's temporary storage, not in memory."""
        self._connection.execute("CREATE TEMP TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._connection.execute("DELETE FROM temp.seen")

    def see(self, id: str) -> bool:
        """Note that this run met a document; False if it had met it before."""
        return self._connection.execute("INSERT OR IGNORE INTO temp.seen VALUES (?)", (id,)).rowcount == 1

    def unseen(self, root: str, limit: int) -> list[str]:
        """Documents of earlier runs under ``root`` that this run did not meet."""
        query = "SELECT id FROM documents WHERE root = ? AND id NOT IN (SELECT id FROM temp.seen) LIMIT ?"
        return [row[0] for row in self._connection.execute(query, (root, limit))]

    def vacuum(self) -> None:
        """Give the space of deleted rows back to the file system."""
        self._connection.execute("VACUUM")
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _clash(self, batch: Batch) -> str:
        seen: set[str] = set()
        for entry in batch.entries.values():
            for passage in entry.passages:
                row = self._connection.execute("SELECT document FROM passages WHERE id = ?", (passage.id,)).fetchone()
                if passage.id in seen or (row and row[0] != entry.document.id):
                    return f"two passages have the id {passage.id!r}, one of them in document {entry.document.id!r}"
                seen.add(passage.id)
        return "two passages have the same id"


def dump_metadata(metadata: object) -> str:
    """Metadata as the corpus stores it."""
    return json.dumps(metadata, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _document_row(entry: Entry) -> tuple[object, ...]:
    document = entry.document
    metadata = dump_metadata(dict(document.metadata))
    return document.id, document.title, document.source, document.format, metadata, entry.root, entry.digest, len(entry.passages)


def _passage_rows(entries: Iterable[Entry], first: int) -> Iterator[tuple[object, ...]]:
    rowid = first
    for entry in entries:
        for ordinal, p in enumerate(entry.passages):
            metadata = dump_metadata(dict(p.metadata))
            crc = checksum(p.id, p.text, p.document, p.title, p.start, p.end, metadata)
            yield rowid, p.id, p.document, ordinal, p.text, p.title, p.start, p.end, metadata, crc
            rowid += 1


def _add_segment(connection: sqlite3.Connection, record: SegmentRecord) -> None:
    values = (record.name, record.first, record.last, record.passages, record.kind, record.files_json())
    connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)", values)
    connection.execute("UPDATE meta SET value = ? WHERE key = 'segment'", (str(int(record.name)),))


def _drop_segment(connection: sqlite3.Connection, name: str, first: int, last: int) -> None:
    connection.execute("DELETE FROM segments WHERE name = ?", (name,))
    connection.execute("DELETE FROM tombstones WHERE rowid BETWEEN ? AND ?", (first, last))


def _bury(connection: sqlite3.Connection, ids: Sequence[str]) -> list[str]:
    """Delete documents and their text, leave tombstones for their rows, and drop segments in which nothing is alive any more."""
    if not ids:
        return []
    for id in ids:
        connection.execute("INSERT INTO tombstones SELECT rowid FROM passages WHERE document = ?", (id,))
        connection.execute("DELETE FROM passages WHERE document = ?", (id,))
        connection.execute("DELETE FROM documents WHERE id = ?", (id,))
    query = (
        "SELECT name, first, last FROM segments AS s "
        "WHERE passages = (SELECT count(*) FROM tombstones WHERE rowid BETWEEN s.first AND s.last)"
    )
    dead: list[tuple[str, int, int]] = connection.execute(query).fetchall()
    for name, first, last in dead:
        _drop_segment(connection, name, first, last)
    return [name for name, _, _ in dead]
