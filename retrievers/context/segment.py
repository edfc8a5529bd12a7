"""One immutable folder of encoded passages: tensors in safetensors, mapped into memory, and an index with a checksum for each passage."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rag.core.errors import CorpusDamaged
from retrievers.context.encoded import ModelIdentity
from retrievers.context.manifest import FileName, SegmentRecord
from retrievers.context.numbers import Deviation, NumberFormat, Packed, checksum
from retrievers.corpus import durable
from retrievers.corpus.manifest import FileRecord

TENSORS: Final = "contexts.safetensors"
INDEX: Final = "index.json"
_FILES: tuple[FileName, ...] = (INDEX, TENSORS)

_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Entry:
    """One passage of a segment. ``text`` is the hash of what was encoded, ``sha256`` that of its stored tensors, ``spelling`` that of its
    token ids (`token_hash`; None in stores of earlier versions).

    Its tensors are called "ROW.keys", "ROW.values", … where ROW is its place in the index: an id never becomes a name or a path.
    """

    id: str
    text: _Digest
    tokens: Annotated[int, Field(ge=1, strict=True)]
    sha256: _Digest
    deviation: Deviation
    spelling: _Digest | None = None


_ENTRIES = TypeAdapter(list[Entry])


def write_segment(parent: Path, name: str, content: Sequence[tuple[Entry, Packed]]) -> SegmentRecord:
    """Write segment ``name`` below ``parent`` and flush it. It exists for readers only once a manifest names it."""
    folder = parent / f"{durable.TEMPORARY}{name}"
    durable.remove(folder)
    folder.mkdir()
    try:
        entries = [entry for entry, _ in content]
        tensors = {f"{row}.{part}": tensor for row, (_, packed) in enumerate(content) for part, tensor in packed.items()}
        durable.write(folder / TENSORS, save(tensors))
        durable.write(folder / INDEX, _ENTRIES.dump_json(entries))
        files: dict[FileName, FileRecord] = {file: _record(folder / file) for file in _FILES}
        durable.publish(folder, parent / name)
    except BaseException:
        durable.remove(folder)
        raise
    deviation = sum((entry.deviation for entry in entries), Deviation())
    return SegmentRecord(name, len(entries), sum(entry.tokens for entry in entries), files, deviation)


class Segment:
    """A committed segment. Its index is checked when it is opened, a passage when it is loaded. Any number of threads may load."""

    def __init__(self, parent: Path, record: SegmentRecord, model: ModelIdentity, numbers: NumberFormat) -> None:
        """Read the index. Raises `CorpusDamaged`."""
        self.record = record
        self.folder = parent / record.name
        self._model, self._numbers = model, numbers
        self._lock = threading.Lock()
        self._mapped: Any = None
        self.entries = self._read_index()

    def load(self, row: int) -> Packed:
        """A copy of the tensors of passage ``row``, checked. Raises `CorpusDamaged` rather than return a number that was not written."""
        entry, path = self.entries[row], self.folder / TENSORS
        packed = {}
        try:
            self._check_size(TENSORS)  # to touch the map of a file that was cut short would end the process
            mapped = self._map(path)
            for part, (kind, shape) in self._numbers.layout(self._model, entry.tokens).items():
                tensor = mapped.get_tensor(f"{row}.{part}")
                if tensor.dtype != kind or tuple(tensor.shape) != shape:
                    raise self._damaged(path, f"{row}.{part} is {tensor.dtype} {tuple(tensor.shape)}, not {kind} {shape}")
                packed[part] = tensor.clone()  # what is checked is what is used, whatever happens to the file
        except (SafetensorError, OSError, KeyError, RuntimeError, ValueError) as error:
            raise self._damaged(path, str(error)) from error
        if checksum(packed) != entry.sha256:
            raise self._damaged(path, f"the checksum of passage {entry.id!r} is wrong")
        return packed

    def check_file(self) -> None:
        """Check every byte of the tensors' file, its header included. Raises `CorpusDamaged`."""
        path = self.folder / TENSORS
        try:
            found = durable.sha256(path)
        except OSError as error:
            raise self._damaged(path, str(error)) from error
        if found != self.record.files[TENSORS].sha256:
            raise self._damaged(path, "its SHA-256 is not what the manifest says")

    def _read_index(self) -> list[Entry]:
        path = self.folder / INDEX
        try:
            self._check_size(INDEX)
            if durable.sha256(path) != self.record.files[INDEX].sha256:
                raise self._damaged(path, "its SHA-256 is not what the manifest says")
            entries = _ENTRIES.validate_json(path.read_bytes())
        except (OSError, KeyError, ValidationError) as error:
            raise self._damaged(path, str(error)) from error
        if len(entries) != self.record.passages:
            raise self._damaged(path, f"it names {len(entries)} passages where the manifest counts {self.record.passages}")
        return entries

    def _check_size(self, name: FileName) -> None:
        path = self.folder / name
        found, expected = path.stat().st_size, self.record.files[name].bytes
        if found != expected:
            raise self._damaged(path, f"it has {found} bytes where the manifest says {expected}")

    def _map(self, path: Path) -> Any:
        with self._lock:
            if self._mapped is None:
                self._mapped = safe_open(path, framework="pt", device="cpu")
            return self._mapped

    def _damaged(self, path: Path, reason: str) -> CorpusDamaged:
        return CorpusDamaged(f"{path}: {reason}; `rag contexts build --repair` encodes anew what is damaged")


def _record(path: Path) -> FileRecord:
    return FileRecord(path.stat().st_size, durable.sha256(path))
