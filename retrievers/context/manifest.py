"""What a store of contexts says about itself: whose numbers it holds, in which format, and its segments with their checksums."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError

from rag.core.errors import CorpusDamaged, CorpusMismatch, CorpusNotFound
from retrievers.context.encoded import ModelIdentity
from retrievers.context.numbers import Deviation
from retrievers.corpus import durable
from retrievers.corpus.manifest import FileRecord

FORMAT = 1
"""Version of the layout on disk. A reader refuses any other."""
MANIFEST = "manifest.json"

FileName = Literal["contexts.safetensors", "index.json"]
Count = Annotated[int, Field(ge=0, strict=True)]


@dataclass(frozen=True, slots=True)
class SegmentRecord:
    """One immutable folder of encoded passages. ``name`` is a number and nothing else: it becomes a path."""

    name: Annotated[str, Field(pattern=r"^[0-9]{6,12}$")]
    passages: Count
    tokens: Count
    files: Mapping[FileName, FileRecord]
    deviation: Deviation

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(file.bytes for file in self.files.values())


@dataclass(frozen=True, slots=True)
class Manifest:
    """The store as one value. ``corpus`` is the fingerprint of what was encoded; "" while a build is not finished."""

    model: ModelIdentity
    numbers: Literal["float32", "float16", "int8", "int4"]
    corpus: str = ""
    next: Count = 1
    """Number of the next segment. Numbers are never used again, so that a reader cannot take a new segment for an old one."""
    segments: tuple[SegmentRecord, ...] = ()


_MANIFEST = TypeAdapter(Manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read and check. Raises `CorpusNotFound`, `CorpusMismatch` (another format version) or `CorpusDamaged`."""
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CorpusNotFound(f"{folder}: there is no store of contexts here (no {MANIFEST}); build one with `rag contexts build`") from None
    except ValueError as error:
        raise _damaged(path, f"it is no JSON ({error})") from error
    if not isinstance(document, dict) or not {"format", "sha256", "manifest"} <= set(document):
        raise _damaged(path, "it lacks format, sha256 or manifest")
    if document["format"] != FORMAT:
        raise CorpusMismatch(
            f"{path}: format version {document['format']!r}, but this release of graft reads {FORMAT}: update graft or build anew"
        )
    content = document["manifest"]
    if digest(content) != document["sha256"]:
        raise _damaged(path, "its checksum is wrong")
    try:
        manifest = _MANIFEST.validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    if len({segment.name for segment in manifest.segments}) < len(manifest.segments):
        raise _damaged(path, "it names a segment twice")
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest as a whole: this is what commits."""
    content = asdict(manifest)
    document = {"format": FORMAT, "sha256": digest(content), "manifest": content}
    temporary = folder / f"{durable.TEMPORARY}{MANIFEST}"
    durable.write(temporary, (json.dumps(document, indent=1) + "\n").encode())
    durable.flush(temporary)
    durable.rename(temporary, folder / MANIFEST)


def check_model(found: ModelIdentity, wanted: ModelIdentity, where: Path) -> None:
    """Raise `CorpusMismatch`, naming all that differs."""
    differing = [f"{name} {old!r}, not {new!r}" for name, old, new in _pairs(found, wanted) if old != new]
    if differing:
        raise CorpusMismatch(
            f"{where}: these contexts were encoded by another model ({'; '.join(differing)}); keys and values of two models do not mix: "
            "use the model that built the store, or build another store"
        )


def digest(content: Any) -> str:
    """SHA-256 of plain data, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _pairs(found: ModelIdentity, wanted: ModelIdentity) -> list[tuple[str, object, object]]:
    return [(name, value, asdict(wanted)[name]) for name, value in asdict(found).items()]


def _damaged(path: Path, reason: str) -> CorpusDamaged:
    return CorpusDamaged(
        f"{path}: {reason}: the disk failed or something else wrote to it; restore a copy, or delete the store and build again"
    )
