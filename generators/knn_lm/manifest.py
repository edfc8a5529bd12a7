"""What a datastore says about itself: whose vectors it holds, of which corpus, and the checksums of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generators.knn_lm.decoder import Source
from generators.knn_lm.windows import Windows
from rag.core.errors import CorpusDamaged, CorpusMismatch, InputError
from retrievers.corpus import durable
from retrievers.corpus.manifest import FileRecord

FORMAT = 1
"""Version of the layout on disk."""
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """What decides every byte of a datastore: the model, the corpus (SHA-256 over its tokens) and how it is read."""

    source: Source
    corpus: str
    windows: Windows
    batch: int
    entries: int

    @staticmethod
    def of(source: Source, texts: Sequence[Sequence[int]], windows: Windows, batch: int) -> Plan:
        """For ``texts`` as token ids. Raises `InputError` if there is nothing to predict in them."""
        digest = hashlib.sha256()
        for ids in texts:
            digest.update(f"{','.join(map(str, ids))};".encode())
        entries = sum(max(0, len(ids) - 1) for ids in texts)
        if not entries:
            raise InputError(f"the corpus is empty: {len(texts)} texts, none of two tokens or more; a datastore needs text to read")
        return Plan(source, digest.hexdigest(), windows, batch, entries)


@dataclass(frozen=True, slots=True)
class Manifest:
    """``lists`` is the number of clusters of the index; ``spread`` the mean squared distance of a key to the mean of all."""

    plan: Plan
    lists: int
    spread: float
    files: Mapping[str, FileRecord]

    def write(self, folder: Path) -> None:
        """Write it whole; with it, the datastore is there."""
        write_json(folder / MANIFEST, {"format": FORMAT, **asdict(self)})

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Raises `CorpusDamaged`, or `CorpusMismatch` for another format."""
        file = folder / MANIFEST
        try:
            held = json.loads(file.read_text("utf-8"))
            if held["format"] != FORMAT:
                raise CorpusMismatch(f"{file}: its format is {held['format']!r}, this version reads {FORMAT}; build the datastore again")
            plan = held["plan"]
            files = {str(name): FileRecord(int(one["bytes"]), str(one["sha256"])) for name, one in held["files"].items()}
            whole = Plan(_source(plan["source"]), str(plan["corpus"]), Windows(**plan["windows"]), int(plan["batch"]), int(plan["entries"]))
            manifest = Manifest(whole, int(held["lists"]), float(held["spread"]), files)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise CorpusDamaged(f"{file}: it is not what a datastore writes ({error!r}); build the datastore again") from error
        return manifest


def write_json(file: Path, value: Any) -> None:
    """Write ``value`` so that a reader finds the old or the new one, after a power cut too."""
    new = file.with_name(f".{file.name}.new")
    durable.write(new, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())
    durable.flush(new)
    durable.rename(new, file)


def _source(held: Mapping[str, Any]) -> Source:
    return Source(str(held["weights"]), str(held["tokenizer"]), str(held["layer"]), int(held["dim"]))
