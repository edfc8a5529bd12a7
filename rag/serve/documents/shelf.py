"""The corpus as the server sees it: read by any request, changed by one thread alone."""

from __future__ import annotations

import asyncio
import errno
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from rag.core.errors import CorpusError, CorpusLocked, InputError
from rag.serve.documents.lines import Parsed
from rag.serve.documents.names import root_of
from rag.serve.errors import RequestError
from retrievers.corpus.manifest import DocumentRecord, Summary

if TYPE_CHECKING:
    from rag.core.types import Document, Passage
    from retrievers.corpus import Corpus
    from retrievers.corpus.writer import Writer

log = logging.getLogger("graft.serve")

BATCH = 512
"""Passages of a commit: what is lost at most when a job is cancelled."""

_RETRY = 0.1
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

T = TypeVar("T")
Action = Callable[["Writer", threading.Event], T]


@dataclass(slots=True)
class Account:
    """What a job committed so far, in documents and passages, and which files it left out."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    passages: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def skip(self, name: str, reason: str) -> None:
        """One file or document that is not in the corpus now."""
        self.skipped.append({"name": name, "reason": reason})

    def describe(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        names = ("added", "updated", "unchanged", "deleted", "passages")
        return {**{name: getattr(self, name) for name in names}, "skipped": list(self.skipped), "notes": list(self.notes)}


class _Stopped(Exception):
    """The one who waited for the writer has given up."""


class Shelf:
    """Searches go on while it writes: they see each commit whole. Close it when the server stops.

    ``lock_seconds``: how long it waits for another process that writes to the corpus. ``batch_passages``: passages of a commit. Every
    change raises `RequestError`: 503 if another process does not stop writing, 507 if the disk is full (what was committed stays, and
    nothing is half there).
    """

    def __init__(self, corpus: Corpus, *, lock_seconds: float = 30.0, batch_passages: int = BATCH) -> None:
        if batch_passages < 1:
            raise InputError(f"a commit needs at least 1 passage, not {batch_passages}")
        self.corpus = corpus
        self._lock_seconds = lock_seconds
        self._batch = batch_passages
        self._thread = ThreadPoolExecutor(1, "shelf")
        self._closing = threading.Event()

    async def add(self, files: Sequence[Parsed], account: Account, committed: Callable[[], None] = lambda: None) -> None:
        """Write the documents of ``files``: those whose id is there with other content are replaced, unchanged ones left alone.

        ``account`` grows with each commit, and ``committed`` is called after it, in this event loop. Cancelling the call ends it between
        two commits; it returns only then.
        """
        loop = asyncio.get_running_loop()

        def write(writer: Writer, stop: threading.Event) -> None:
            for root, group in groupby(files, attrgetter("root")):
                last = Summary()

                def count(summary: Summary) -> None:
                    nonlocal last
                    _count(account, last, summary)
                    last = summary
                    loop.call_soon_threadsafe(committed)

                documents = self._until(stop, _with_text(chain.from_iterable(group), account))
                # What older versions of a table hold and this one does not is deleted at its end.
                count(writer.add(documents, batch_passages=self._batch, progress=count, root=root, prune=bool(root)))

        await self._turn(write)

    async def delete(self, id: str) -> int:
        """Delete the document ``id``, or all records of the table that was uploaded under that name. Returns how many there were."""

        def delete(writer: Writer, stop: threading.Event) -> int:
            root = root_of(id)
            return writer.delete([id]) + (writer.add((), root=root, prune=True).deleted if root else 0)

        return await self._turn(delete)

    async def page(self, after: str, limit: int) -> list[DocumentRecord]:
        """At most ``limit`` documents whose ids come after ``after``, ordered by id."""
        return await asyncio.to_thread(lambda: list(islice(self.corpus.documents(after), limit)))

    async def document(self, id: str, limit: int) -> tuple[DocumentRecord, list[Passage]] | None:
        """A document and its first ``limit`` passages; None if there is none of that id."""

        def find() -> tuple[DocumentRecord, list[Passage]] | None:
            record = self.corpus.document(id)
            return None if record is None else (record, list(islice(self.corpus.each_passage(id), limit)))

        return await asyncio.to_thread(find)

    def close(self) -> None:
        """Finish the commit that is being written, and write no other. Blocks until then."""
        self._closing.set()
        self._thread.shutdown(cancel_futures=True)

    async def _turn(self, action: Action[T]) -> T:
        """Run ``action`` in the writer's thread, after those that came before."""
        stop = threading.Event()
        try:
            future = self._thread.submit(self._write, action, stop)
        except RuntimeError:  # it is closed
            raise _shutting_down() from None
        turn = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(turn)
        except asyncio.CancelledError:
            stop.set()
            future.cancel()
            while not turn.done():  # however often it is cancelled: the files it reads must not go before it ends
                try:
                    await asyncio.wait({turn})
                except asyncio.CancelledError:
                    continue
            if not turn.cancelled():
                turn.exception()
            raise
        except _Stopped:
            raise _shutting_down() from None

    def _write(self, action: Action[T], stop: threading.Event) -> T:
        """In the writer's thread."""
        end = time.monotonic() + self._lock_seconds
        while True:
            if stop.is_set() or self._closing.is_set():
                raise _Stopped
            try:
                with self.corpus.writer() as writer:
                    return action(writer, stop)
            except CorpusLocked as error:
                if time.monotonic() > end:
                    log.warning("uploads cannot be written: %s", error)
                    raise _busy(self._lock_seconds) from error
                stop.wait(_RETRY)
            except (CorpusError, OSError) as error:
                if not _full(error):
                    raise
                log.error("the disk of the corpus is full: %s", error)
                raise _no_room() from error

    def _until(self, stop: threading.Event, documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            if stop.is_set() or self._closing.is_set():
                raise _Stopped
            yield document


def _with_text(documents: Iterable[Document], account: Account) -> Iterator[Document]:
    for document in documents:
        if document.text.strip():
            yield document
        else:
            account.skip(document.id, "has no text")


def _count(account: Account, before: Summary, now: Summary) -> None:
    for name in ("added", "updated", "unchanged", "deleted", "passages"):
        setattr(account, name, getattr(account, name) + getattr(now, name) - getattr(before, name))


def _full(error: Exception) -> bool:
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError):
        return cause.errno in _FULL
    return isinstance(cause, sqlite3.OperationalError) and "full" in str(cause)


def _no_room() -> RequestError:
    message = "the server's disk is full: what the job had committed stays, the rest was not written; make room and send it again"
    return RequestError(507, message, type="server_error", code="disk_full")


def _busy(seconds: float) -> RequestError:
    message = f"another process has been writing to the corpus for {seconds:g} seconds and more; try again when it is done"
    return RequestError(503, message, type="server_error", code="corpus_busy", retry_after=30)


def _shutting_down() -> RequestError:
    return RequestError(503, "the server is shutting down", type="server_error", code="shutting_down")
