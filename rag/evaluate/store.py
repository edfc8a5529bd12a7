"""A run folder: the outcomes of one data set's questions under any number of pipelines, each written as soon as it is there."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from rag.core.errors import InputError, RunError
from rag.evaluate.identity import changes
from rag.evaluate.types import Outcome

FORMAT = 1
"""Version of the layout on disk."""
DATABASE = "outcomes.sqlite3"
LOCK = "lock"

_APPLICATION = 0x47524654  # "GRFT" in the file's header: a database of something else is not taken for ours
_SCHEMA = (
    "CREATE TABLE data (key TEXT NOT NULL)",
    "CREATE TABLE runs (name TEXT PRIMARY KEY, key TEXT NOT NULL, asked INTEGER NOT NULL, seconds REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE outcomes (run TEXT NOT NULL, question TEXT NOT NULL, failed INTEGER NOT NULL, outcome TEXT NOT NULL,"
    " PRIMARY KEY (run, question)) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {FORMAT}",
)


class RunFolder:
    """The folder ``path``, made if it is missing, locked until it is closed; a context manager.

    It belongs to one data set (`claim_data`) and each name in it to one pipeline (`claim_run`): whatever else comes is refused with what
    differs. A good outcome is never replaced. Raises `InputError` for a folder that holds something else or another format, `RunError`
    where another process is writing, or the disk fails.
    """

    def __init__(self, path: str | Path) -> None:
        from filelock import FileLock, Timeout

        self.path = Path(path)
        _refuse_foreign(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / LOCK, timeout=0, thread_local=False)
            self._lock.acquire()
        except Timeout:
            raise RunError(f"{self.path}: another process is evaluating into this folder; wait for it, or choose another one") from None
        except OSError as error:
            raise RunError(f"{self.path}: the run folder cannot be made ({error.strerror or error})") from error
        try:
            self._connection = self._connect()
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the folder go."""
        self._connection.close()
        self._lock.release()

    def claim_data(self, key: Mapping[str, Any]) -> None:
        """Make the folder that of these questions. Raises `InputError` if it is that of others."""
        with _errors(self.path), self._connection:
            row = self._connection.execute("SELECT key FROM data").fetchone()
            if row is None:
                self._connection.execute("INSERT INTO data VALUES (?)", (_dump(key),))
                return
        self._compare(json.loads(row[0]), key, "holds an evaluation of other questions")

    def claim_run(self, name: str, key: Mapping[str, Any]) -> None:
        """Make ``name`` the run of this pipeline. Raises `InputError` if it is that of another."""
        with _errors(self.path), self._connection:
            row = self._connection.execute("SELECT key FROM runs WHERE name = ?", (name,)).fetchone()
            if row is None:
                self._connection.execute("INSERT INTO runs VALUES (?, ?, 0, 0)", (name, _dump(key)))
                return
        self._compare(json.loads(row[0]), key, f"holds a run '{name}' of another pipeline")

    def key(self, name: str) -> dict[str, Any]:
        """What the run was claimed with. Raises `InputError` if there is no such run."""
        with _errors(self.path):
            row = self._connection.execute("SELECT key FROM runs WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise InputError(f"{self.path}: there is no run '{name}' in this folder")
        return dict(json.loads(row[0]))

    def outcomes(self, name: str) -> dict[str, Outcome]:
        """What the run has so far, by question."""
        with _errors(self.path):
            rows = self._connection.execute("SELECT outcome FROM outcomes WHERE run = ?", (name,)).fetchall()
        found = [_outcome(json.loads(text)) for (text,) in rows]
        return {outcome.question: outcome for outcome in found}

    def add(self, name: str, outcome: Outcome) -> None:
        """Write one outcome at once. It takes the place of a failed one of the same question, and of no other."""
        with _errors(self.path), self._connection:
            changed = self._connection.execute(
                "INSERT INTO outcomes VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET failed = excluded.failed, outcome = excluded.outcome"
                " WHERE outcomes.failed",
                (name, outcome.question, bool(outcome.error), _dump(asdict(outcome))),
            ).rowcount
        if not changed:
            raise RunError(f"{self.path}: question '{outcome.question}' of run '{name}' has an outcome already")

    def add_time(self, name: str, asked: int, seconds: float) -> None:
        """Note that ``asked`` questions took ``seconds`` in all."""
        with _errors(self.path), self._connection:
            self._connection.execute("UPDATE runs SET asked = asked + ?, seconds = seconds + ? WHERE name = ?", (asked, seconds, name))

    def rate(self, name: str) -> float | None:
        """Questions per second over all sessions of the run that came to an end; None if none did."""
        with _errors(self.path):
            row = self._connection.execute("SELECT asked, seconds FROM runs WHERE name = ?", (name,)).fetchone()
        return row[0] / row[1] if row and row[1] > 0 else None

    def _connect(self) -> sqlite3.Connection:
        with _errors(self.path):
            connection = sqlite3.connect(self.path / DATABASE, isolation_level="IMMEDIATE", check_same_thread=False)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = NORMAL")  # a killed process loses nothing; a power cut the last moments at most
                if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                    _check_format(connection, self.path)
                else:
                    _lay_out(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _compare(self, before: Mapping[str, Any], after: Mapping[str, Any], what: str) -> None:
        if before != after:
            raise InputError(
                f"{self.path}: the folder {what} ({changes(before, after)}); nothing was changed; choose another folder or delete this one"
            )


def read_runs(path: str | Path) -> dict[str, dict[str, Outcome]]:
    """All outcomes in the run folder ``path``, by run and question, as far as they have come: it may be in use. Nothing is changed.

    Raises `InputError` if there is no run folder, or one of another format, `RunError` if it cannot be read.
    """
    folder = Path(path)
    if not (folder / DATABASE).is_file():
        raise InputError(f"{folder}: there is no run folder here; name one that `rag eval --out` or `evaluate` wrote")
    with _errors(folder):
        connection = sqlite3.connect(f"{(folder / DATABASE).absolute().as_uri()}?mode=ro", uri=True)
        try:
            _check_format(connection, folder)
            found: dict[str, dict[str, Outcome]] = {name: {} for (name,) in connection.execute("SELECT name FROM runs")}
            for name, text in connection.execute("SELECT run, outcome FROM outcomes"):
                outcome = _outcome(json.loads(text))
                found.setdefault(name, {})[outcome.question] = outcome
        finally:
            connection.close()
    return found


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise RunError(f"{path / DATABASE}: SQLite cannot go on ({error}); look at the disk, or choose another folder") from error


def _lay_out(connection: sqlite3.Connection) -> None:
    with connection:
        connection.execute("BEGIN")
        for statement in _SCHEMA:
            connection.execute(statement)


def _check_format(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != _APPLICATION:
        raise InputError(f"{path / DATABASE}: this database is not one of graft's; choose another folder")
    if version != FORMAT:
        raise InputError(f"{path}: these runs have format {version}, and this version of graft reads {FORMAT}; choose another folder")


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: this is a file; name a folder for the runs")
    if folder.is_dir() and not (folder / DATABASE).exists():
        others = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
        if others:
            raise InputError(
                f"{folder}: this folder holds something else ({', '.join(others[:3])}); name a new or empty folder for the runs"
            )


def _dump(data: Mapping[str, Any]) -> str:
    return json.dumps(data)  # ASCII: a model's text may hold half a surrogate pair, which SQLite would refuse


def _outcome(record: dict[str, Any]) -> Outcome:
    citations = tuple((str(id), bool(valid)) for id, valid in record.pop("citations"))
    return Outcome(**{**record, "citations": citations, "retrieved": tuple(record["retrieved"])})
