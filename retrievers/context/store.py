"""`ContextStore`: passages as the keys and values that a model made of them, on disk and in faster places above it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from rag.core.errors import CorpusDamaged, CorpusError, CorpusMismatch, CorpusNotFound, InputError
from retrievers.context.encoded import Encoded, ModelIdentity, token_hash
from retrievers.context.manifest import MANIFEST, Manifest, check_model, read_manifest
from retrievers.context.numbers import Deviation, Packed, check_encoded, number_format
from retrievers.context.segment import Segment
from retrievers.context.tiers import Key, Tier

SEGMENTS = "segments"


@dataclass(frozen=True, slots=True)
class Miss:
    """Why a passage has to be encoded now: it was never stored ("absent"), its text is another one ("changed"), what is stored cannot be
    read ("damaged"), or whoever stores it does not answer ("unreachable"); ``detail`` says what is wrong."""

    id: str
    reason: Literal["absent", "changed", "damaged", "unreachable"]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Damage:
    """What `ContextStore.verify` found. ``id`` is "" where a whole segment is concerned."""

    segment: str
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class State:
    """The store at one commit: where each passage is, and which segments cannot be opened (name -> why).

    ``spelt`` has the id of a passage for the hash of its tokens; passages that an earlier version wrote are not in it.
    """

    manifest: Manifest
    segments: dict[str, Segment]
    places: dict[str, tuple[Segment, int]]
    broken: dict[str, str]
    spelt: dict[str, str]


class ContextStore:
    """Encoded passages in the folder ``path``. Any number of processes may read while one writes; a commit is seen from the next `get` on.

    ``model`` is who will read them: a store of another one is refused. ``ram_bytes`` bounds what is kept in RAM, as it is stored; with
    ``device`` ("cuda") as many as ``device_bytes`` are kept there too, and results are there. They come in ``dtype``. Raises
    `CorpusNotFound`, `CorpusMismatch`, `CorpusDamaged`, `InputError`, and `ConfigError` if there is no such device.
    """

    def __init__(
        self,
        path: str | Path,
        model: ModelIdentity | None = None,
        *,
        ram_bytes: int = 1 << 30,
        device: str | None = None,
        device_bytes: int = 1 << 30,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.folder = Path(path)
        self.dtype = dtype
        self.ram = Tier("ram", ram_bytes)
        self.tiers = [self.ram] if device is None else [Tier("device", device_bytes, device), self.ram]
        """The fastest first. Each counts its hits, misses and evictions."""
        self.loads = 0
        """Passages read from the disk and checked."""
        self._lock = threading.RLock()
        self._stamp: tuple[int, ...] = ()
        manifest = read_manifest(self.folder)
        if model is not None:
            check_model(manifest.model, model, self.folder)
        self.model = manifest.model
        self.numbers = number_format(manifest.numbers)
        self._state = State(manifest, {}, {}, {}, {})
        self.state()

    def get(self, ids: Sequence[str], texts: Sequence[str]) -> list[Encoded | Miss]:
        """What is stored of each passage, provided that it was encoded from this very text. Raises `InputError` if the numbers differ.

        Damage is never an error and never a wrong number: it is a `Miss`. Checksums are checked when a passage comes from the disk.
        """
        if len(ids) != len(texts):
            raise InputError(f"get takes a text for each id: {len(ids)} ids and {len(texts)} texts came")
        return [self._get(id, text_hash(text)) for id, text in zip(ids, texts, strict=True)]

    def spelt(self, spelling: str) -> Encoded | Miss:
        """What is stored of the passage whose tokens have this hash (`token_hash`). A `Miss` names the hash where no passage has it."""
        try:
            state = self.state()
        except CorpusError as error:
            return Miss(spelling, "damaged", str(error))
        id = state.spelt.get(spelling)
        if id is None:
            return Miss(spelling, "absent")
        segment, row = state.places[id]
        found = self._get(id, segment.entries[row].text)
        if isinstance(found, Miss) or token_hash(found.tokens) == spelling:
            return found
        return Miss(id, "changed")

    def keep(self, id: str, text: str, encoded: Encoded, seconds: float) -> None:
        """Keep a passage that was encoded just now, in memory only. ``seconds`` is what that took. Raises `ModelError`."""
        check_encoded(encoded, self.model, f"passage {id!r}")
        self.ram.put((id, text_hash(text)), self.numbers.pack(encoded)[0], seconds)

    def hashes(self) -> dict[str, str]:
        """Passage id -> hash of the text that was encoded."""
        return {id: segment.entries[row].text for id, (segment, row) in self.state().places.items()}

    def state(self) -> State:
        """The newest commit. A few microseconds if nothing was committed. Raises `CorpusError`."""
        with self._lock:
            try:
                found = os.stat(self.folder / MANIFEST)
            except OSError as error:
                raise CorpusNotFound(f"{self.folder}: the store of contexts is gone ({error.strerror})") from error
            stamp = found.st_ino, found.st_mtime_ns, found.st_size
            if stamp != self._stamp:
                self._state = self._open(read_manifest(self.folder))
                self._stamp = stamp
            return self._state

    def verify(self) -> list[Damage]:
        """Read every byte; return all that is damaged."""
        state = self.state()
        found = [Damage(name, "", reason) for name, reason in state.broken.items()]
        for name, segment in state.segments.items():
            before = len(found)
            for row, entry in enumerate(segment.entries):
                try:
                    segment.load(row)
                except CorpusDamaged as error:
                    found.append(Damage(name, entry.id, str(error)))
            if len(found) == before:
                try:
                    segment.check_file()
                except CorpusDamaged as error:
                    found.append(Damage(name, "", str(error)))
        return found

    def info(self) -> dict[str, Any]:
        """What `rag contexts show` shows: counts, bytes, the measured error of the number format, and whose numbers they are."""
        state = self.state()
        records = state.manifest.segments
        deviation = sum((record.deviation for record in records), Deviation())
        tokens = sum(record.tokens for record in records)
        return {
            "path": str(self.folder),
            "model": asdict(self.model),
            "format": self.numbers.name,
            "passages": len(state.places),
            "tokens": tokens,
            "segments": len(records),
            "unreadable_segments": dict(state.broken),
            "bytes": sum(record.bytes for record in records),
            "bytes_per_token": sum(record.bytes for record in records) / tokens if tokens else 0.0,
            "error_keys": deviation.keys,
            "error_values": deviation.values,
            "complete": bool(state.manifest.corpus),
            "corpus": state.manifest.corpus,
        }

    def __len__(self) -> int:
        return len(self.state().places)

    def __bool__(self) -> bool:
        return True  # a store without passages is still a store

    def _get(self, id: str, text: str) -> Encoded | Miss:
        key = id, text
        for level, tier in enumerate(self.tiers):
            packed = tier.get(key)
            if packed is not None:
                return self.numbers.unpack(self._lift(key, packed, level, 0.0), self.dtype)
        started = time.perf_counter()
        packed_or_miss = self._load(id, text)
        if isinstance(packed_or_miss, Miss):
            return packed_or_miss
        packed = self._lift(key, packed_or_miss, len(self.tiers), time.perf_counter() - started)
        return self.numbers.unpack(packed, self.dtype)

    def _lift(self, key: Key, packed: Packed, level: int, seconds: float) -> Packed:
        """Bring a passage from tier ``level`` into all above it; return it as it is in the topmost."""
        for tier in reversed(self.tiers[:level]):
            started = time.perf_counter()
            packed = tier.put(key, packed, seconds)
            seconds = time.perf_counter() - started  # what the tier above saves
        return packed

    def _load(self, id: str, text: str) -> Packed | Miss:
        while True:
            try:
                state = self.state()
            except CorpusError as error:  # what was opened whole went bad since
                return Miss(id, "damaged", str(error))
            place = state.places.get(id)
            if place is None and state.broken:
                return Miss(id, "damaged", f"it may have been in a segment that cannot be read: {next(iter(state.broken.values()))}")
            if place is None:
                return Miss(id, "absent")
            segment, row = place
            if segment.entries[row].text != text:
                return Miss(id, "changed")
            try:
                packed = segment.load(row)
            except CorpusDamaged as error:
                if self._moved_on(state):  # a writer took the segment away
                    continue
                return Miss(id, "damaged", str(error))
            with self._lock:
                self.loads += 1
            return packed

    def _moved_on(self, state: State) -> bool:
        try:
            return self.state() is not state
        except CorpusError:
            return False

    def _open(self, manifest: Manifest) -> State:
        check_model(manifest.model, self.model, self.folder)
        if manifest.numbers != self.numbers.name:
            raise CorpusMismatch(f"{self.folder}: it was opened as {self.numbers.name} and is {manifest.numbers} now; open it anew")
        segments: dict[str, Segment] = {}
        broken: dict[str, str] = {}
        for record in manifest.segments:
            known = self._state.segments.get(record.name)
            try:
                unchanged = known is not None and known.record == record
                segments[record.name] = known if known and unchanged else Segment(self.folder / SEGMENTS, record, self.model, self.numbers)
            except CorpusDamaged as error:
                broken[record.name] = str(error)
        places = {entry.id: (segment, row) for segment in segments.values() for row, entry in enumerate(segment.entries)}
        spelt = {spelling: id for id, (segment, row) in places.items() if (spelling := segment.entries[row].spelling)}
        return State(manifest, segments, places, broken, spelt)


def text_hash(text: str) -> str:
    """SHA-256 of a passage's text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
