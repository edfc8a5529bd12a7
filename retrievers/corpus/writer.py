"""A writing session: holds the lock, turns documents into segments batch by batch, and commits each batch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from rag.core.errors import CorpusError, CorpusLocked, InputError, ModelError
from rag.core.trace import note
from rag.core.types import Document, Passage
from retrievers.corpus import ann, durable
from retrievers.corpus.commits import Batch, Commits, Entry
from retrievers.corpus.entries import Candidate, from_documents, from_passages, indexed_text
from retrievers.corpus.manifest import SegmentRecord, Summary
from retrievers.corpus.merge import merged_content, plan, plan_all
from retrievers.corpus.parts import describe
from retrievers.corpus.postings import count_terms
from retrievers.corpus.segment import Columns, Content, Segment, SegmentVanished, write_segment

if TYPE_CHECKING:
    from retrievers.corpus.corpus import Corpus

LOCK = "corpus.lock"
_DELETE = 1000
"""Documents per commit when many are deleted."""

Progress = Callable[[Summary], None]


class Writer:
    """The only one who may change the corpus, between ``with corpus.writer() as w:`` and its end. Use it from one thread at a time."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._folder = corpus.folder
        self._segments = corpus.folder / "segments"
        self._lock = FileLock(self._folder / LOCK, timeout=0, thread_local=False)
        self._open: Commits | None = None

    def __enter__(self) -> Writer:
        self._corpus.check()
        try:
            self._lock.acquire()
        except Timeout:
            raise CorpusLocked(_locked(self._folder)) from None
        try:
            with durable.disk_errors(self._folder):
                (self._folder / LOCK).write_text(str(os.getpid()))
                self._open = Commits(self._folder)
                self._segments.mkdir(exist_ok=True)
                self._remove_orphans()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
        self._lock.release()

    def add(
        self,
        documents: Iterable[Document],
        *,
        batch_passages: int = 2048,
        progress: Progress | None = None,
        root: str = "",
        prune: bool = False,
    ) -> Summary:
        """See `Corpus.add`."""
        chunker = self._corpus.load_chunker()
        self._commits.set_chunker(describe(chunker))
        return self._load(from_documents(documents, chunker), batch_passages, progress, root, prune, last_wins=True)

    def add_passages(self, passages: Iterable[Passage], *, batch_passages: int = 2048, progress: Progress | None = None) -> Summary:
        """See `Corpus.add_passages`."""
        return self._load(from_passages(passages), batch_passages, progress, "", False, last_wins=False)

    def delete(self, ids: Iterable[str]) -> int:
        """See `Corpus.delete`."""
        if isinstance(ids, str):
            raise InputError("delete takes a list of document ids, not one string: delete([id])")
        ids = list(dict.fromkeys(ids))
        deleted = 0
        with durable.disk_errors(self._folder):
            for start in range(0, len(ids), _DELETE):
                found, gone = self._commits.delete(ids[start : start + _DELETE])
                deleted += found
                self._remove(gone)
        return deleted

    def compact(self, index: str | None = None) -> None:
        """See `Corpus.compact`."""
        if index is not None:
            ann.check_kind(index)
        wanted = index or self._commits.meta("index")
        with durable.disk_errors(self._folder):
            records = self._commits.segments()
            kind = ann.choose(wanted, sum(record.passages for record in records))
            for group in plan_all(records):
                self._merge(group, partial(ann.build, kind=kind), kind)
            if index is not None and index != self._commits.meta("index"):
                self._commits.replace([], None, index)
            self._commits.vacuum()

    @property
    def _commits(self) -> Commits:
        if self._open is None:
            raise CorpusError("the writer is closed: use it inside `with corpus.writer() as w:`")
        return self._open

    def _load(
        self,
        candidates: Iterator[Candidate],
        batch_passages: int,
        progress: Progress | None,
        root: str,
        prune: bool,
        *,
        last_wins: bool,
    ) -> Summary:
        if batch_passages < 1:
            raise InputError(f"batch_passages must be at least 1, not {batch_passages}")
        started, summary, batch = time.monotonic(), Summary(), Batch()
        commits = self._commits
        commits.begin_run()

        def flush() -> None:
            nonlocal summary, batch
            if batch.entries or batch.touched:
                with durable.disk_errors(self._folder):
                    self._write(batch, batch_passages)
                summary = _count(summary, batch, time.monotonic() - started)
                batch = Batch()
                if progress is not None:
                    progress(summary)

        for candidate in candidates:
            document = candidate.document
            if not commits.see(document.id) and not last_wins:
                raise InputError(f"the passages of document {document.id!r} must come one after the other; others came in between")
            if document.id in batch.entries or document.id in batch.touched:
                flush()
            known = commits.known(document.id)
            if known is not None and known[0] == candidate.digest:
                summary = replace(summary, unchanged=summary.unchanged + bool(known[3]), skipped=summary.skipped + (not known[3]))
                if known[1:3] != (document.source, root):
                    batch.touched[document.id] = (document.source, root, document.id)
            else:
                passages = candidate.chunk()
                if not passages:
                    note(f"document {document.id} has no text")
                batch.add(Entry(document, candidate.digest, root, passages, known is not None))
            if batch.size + len(batch.touched) // 16 >= batch_passages:
                flush()
        flush()
        if prune:
            while ids := commits.unseen(root, _DELETE):
                summary = replace(summary, deleted=summary.deleted + self.delete(ids))
        return replace(summary, seconds=time.monotonic() - started)

    def _write(self, batch: Batch, slice_size: int) -> None:
        commits, corpus = self._commits, self._corpus
        passages, first = batch.passages(), commits.next_rowid()
        record = None
        if passages:
            texts = [indexed_text(passage) for passage in passages]
            rowids = np.arange(first, first + len(passages), dtype=np.int64)
            columns = Columns.of(count_terms(corpus.load_analyzer().tokens(texts)))
            encoder = corpus.load_encoder()
            vectors = None if encoder is None else _encode(encoder, texts, corpus.dim, slice_size)
            record = write_segment(self._segments, self._name(), Content(rowids, corpus.dim, vectors, columns))
        self._remove(commits.write(batch, first, record))
        while groups := plan(commits.segments()):
            for group in groups:
                self._merge(group)

    def _merge(self, group: Sequence[SegmentRecord], index: Callable[[Path], str] | None = None, kind: str = "") -> None:
        commits = self._commits
        dead = np.array(commits.tombstones(), np.int64)
        low, high = np.searchsorted(dead, [group[0].first, group[-1].last + 1])
        small = group[0].passages < ann.SMALLEST
        if len(group) == 1 and low == high and (group[0].kind in (kind, "none") or (small and group[0].kind == "flat")):
            return  # it is what it would become
        try:
            opened = [Segment(self._segments, record) for record in group]
            content = merged_content(opened, dead[low:high], self._corpus.dim, None if group[0].kind == "none" else index)
            record = None if content is None else write_segment(self._segments, self._name(), content)
        except SegmentVanished as error:
            raise self._corpus.missing(error) from error
        commits.replace(group, record)
        self._remove([old.name for old in group])

    def _name(self) -> str:
        name = f"{int(self._commits.meta('segment')) + 1:06d}"
        durable.remove(self._segments / name)  # a number is used up by its commit, so what stands there was never committed
        return name

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            durable.remove(self._segments / name)

    def _remove_orphans(self) -> None:
        """Delete what a stopped writer left behind: folders that no commit names."""
        committed = {record.name for record in self._commits.segments()}
        self._remove([path.name for path in self._segments.iterdir() if path.name not in committed])


def _encode(encoder: Any, texts: list[str], dim: int, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        vectors = np.asarray(encoder.encode(part, "passage"), np.float32)
        yield check_vectors(vectors, len(part), dim, encoder)


def check_vectors(vectors: np.ndarray, count: int, dim: int, encoder: object) -> np.ndarray:
    """Return ``vectors`` if they are [count, dim] unit rows. Raises `ModelError`: one bad vector would spoil rankings unseen."""
    name = type(encoder).__name__
    if vectors.shape != (count, dim):
        raise ModelError(f"the encoder {name} returned an array of shape {vectors.shape}, not {(count, dim)}")
    lengths = np.einsum("ij,ij->i", vectors, vectors)
    bad = np.flatnonzero(~(np.abs(lengths - 1) < 1e-2))
    if len(bad):
        raise ModelError(
            f"the encoder {name} returned a vector of squared length {lengths[bad[0]]} for text {bad[0]}; all must have length 1"
        )
    return vectors


def _count(summary: Summary, batch: Batch, seconds: float) -> Summary:
    entries = batch.entries.values()
    filled = [entry for entry in entries if entry.passages]
    return replace(
        summary,
        added=summary.added + sum(not entry.replaces for entry in filled),
        updated=summary.updated + sum(entry.replaces for entry in filled),
        skipped=summary.skipped + len(entries) - len(filled),
        passages=summary.passages + sum(len(entry.passages) for entry in filled),
        seconds=seconds,
    )


def _locked(folder: Path) -> str:
    holder = ""
    with suppress(OSError):
        holder = (folder / LOCK).read_text()[:20].strip()
    who = f"process {holder}" if holder.isdigit() else "another process"
    return f"{folder}: {who} is writing to this corpus (lock file {folder / LOCK}); wait for it or stop it; reading is possible"
