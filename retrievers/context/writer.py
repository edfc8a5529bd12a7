"""The one who writes a store of contexts: segments that count once the manifest names them, and what is out of date taken away."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from rag.core.errors import CorpusDamaged, CorpusError, CorpusLocked, CorpusMismatch, InputError
from retrievers.context.encoded import ModelIdentity, token_hash
from retrievers.context.manifest import MANIFEST, Manifest, digest, read_manifest, write_manifest
from retrievers.context.numbers import Deviation, NumberFormat, Packed, checksum, size
from retrievers.context.segment import Entry, Segment, write_segment
from retrievers.context.store import SEGMENTS, ContextStore
from retrievers.corpus import durable

LOCK = "contexts.lock"


class ContextWriter:
    """The only one who may change the store, between ``with`` and its end; makes the store if there is none.

    Whole segments of about ``segment_bytes`` are committed. What a stopped writer left outside of the manifest is removed by the next one.
    """

    def __init__(self, folder: Path, model: ModelIdentity, numbers: NumberFormat, segment_bytes: int) -> None:
        self._folder, self._segments = folder, folder / SEGMENTS
        self._model, self._numbers, self._limit = model, numbers, segment_bytes
        self._lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
        self._pending: list[tuple[Entry, Packed]] = []
        self._bytes = 0

    def __enter__(self) -> ContextWriter:
        with durable.disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise CorpusLocked(_locked(self._folder)) from None
        try:
            with durable.disk_errors(self._folder):
                (self._folder / LOCK).write_text(str(os.getpid()))
                self._segments.mkdir(exist_ok=True)
                if not (self._folder / MANIFEST).exists():
                    write_manifest(self._folder, Manifest(self._model, self._numbers.name))  # type: ignore[arg-type]
                self.store = ContextStore(self._folder, self._model, ram_bytes=0)
                check_numbers(self.store, self._numbers)
                self._remove_orphans()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def add(self, id: str, text: str, packed: Packed, deviation: Deviation) -> None:
        """Take a passage (``text`` is its text's hash); it is committed with its segment."""
        tokens = packed["tokens"].tolist()
        self._pending.append((Entry(id, text, len(tokens), checksum(packed), deviation, token_hash(tokens)), packed))
        self._bytes += size(packed)
        if self._bytes >= self._limit:
            self.commit()

    def commit(self, instead_of: Collection[str] = ()) -> None:
        """Write what was added as a segment; take the segments ``instead_of`` away in the same commit."""
        if not self._pending and not instead_of:
            return
        with durable.disk_errors(self._folder):
            manifest = read_manifest(self._folder)
            segments = [record for record in manifest.segments if record.name not in instead_of]
            if self._pending:
                segments.append(write_segment(self._segments, f"{manifest.next:06d}", self._pending))
            count = manifest.next + bool(self._pending)
            write_manifest(self._folder, replace(manifest, segments=tuple(segments), next=count, corpus=""))
            self._pending, self._bytes = [], 0
            for name in instead_of:
                durable.remove(self._segments / name)

    def sweep(self, wanted: Collection[str] | None = None, damaged: Collection[str] = ()) -> int:
        """Write segments that hold dead passages anew without them, and those that are ``damaged``; return how many died.

        Dead is what a later segment has too, what cannot be read where that is met, and what is not among ``wanted`` (None: all are).
        """
        state = self.store.state()
        died = 0

        def place_of(id: str) -> tuple[Segment, int] | None:
            return state.places.get(id) if wanted is None or id in wanted else None

        for name in [record.name for record in state.manifest.segments]:
            segment = state.segments.get(name)
            entries = segment.entries if segment else []
            living = [row for row, entry in enumerate(entries) if place_of(entry.id) == (segment, row)]
            if segment and len(living) == len(entries) and name not in damaged:
                continue
            died += len(entries) - len(living)
            for row in living:
                entry = entries[row]
                try:
                    self._pending.append((entry, segment.load(row)))  # type: ignore[union-attr]
                except CorpusDamaged:
                    died += 1
            self.commit(instead_of=[name])
        return died

    def finish(self, fingerprint: str) -> None:
        """Say that all of a corpus is there."""
        with durable.disk_errors(self._folder):
            write_manifest(self._folder, replace(read_manifest(self._folder), corpus=fingerprint))

    def _remove_orphans(self) -> None:
        known = {record.name for record in read_manifest(self._folder).segments}
        for path in self._segments.iterdir():
            if path.name not in known:
                durable.remove(path)


def check_free(folder: Path) -> bool:
    """Whether a store is to be made here. Raises `InputError` if something else is there, `CorpusDamaged` if its manifest is gone."""
    if (folder / MANIFEST).exists():
        return False
    if not folder.exists():
        return True
    if not folder.is_dir():
        raise InputError(f"{folder}: there is a file here; name a new folder")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in (LOCK, SEGMENTS, f"{durable.TEMPORARY}{MANIFEST}"))
    if foreign:
        raise InputError(
            f"{folder}: there is something else here ({foreign[0]!r}); name a new folder, or one that `rag contexts build` made"
        )
    if (folder / SEGMENTS).is_dir() and any((folder / SEGMENTS).iterdir()):
        raise CorpusDamaged(f"{folder}: there are segments and no {MANIFEST}: restore it from a copy, or delete the folder and build again")
    return True


def check_numbers(store: ContextStore, wanted: NumberFormat) -> None:
    """Raise `CorpusMismatch` if the store has numbers of another format."""
    if store.numbers != wanted:
        raise CorpusMismatch(
            f"{store.folder}: this store is {store.numbers.name}, not {wanted.name}; leave the format out, or build another store"
        )


def check_room(folder: Path, needed: int) -> None:
    """Raise `CorpusError` unless ``needed`` bytes are free where ``folder`` is or will be."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if needed > free:
        raise CorpusError(
            f"{folder}: {needed:,} bytes are needed and {free:,} are free there: make room, choose a folder on another disk, or a smaller "
            "format (int8 takes half of float16, int4 a quarter)"
        )


def fingerprint(hashes: Mapping[str, str]) -> str:
    """One hash for a whole corpus, given each passage's id and text hash; the order does not matter."""
    return digest(dict(hashes))


def _locked(folder: Path) -> str:
    holder = ""
    with suppress(OSError):
        holder = (folder / LOCK).read_text()[:20].strip()
    who = f"process {holder}" if holder.isdigit() else "another process"
    return f"{folder}: {who} is writing to this store (lock file {folder / LOCK}); wait for it or stop it; reading is possible"
