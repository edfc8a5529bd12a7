"""Looking at a corpus: what it is made of, and whether every byte of it is as it was written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from rag.core.errors import CorpusDamaged
from retrievers.corpus import ann
from retrievers.corpus.cache import PassagesGone
from retrievers.corpus.manifest import Manifest
from retrievers.corpus.snapshot import Snapshot
from retrievers.corpus.store import DATABASE, Store


def describe_corpus(folder: Path, manifest: Manifest) -> dict[str, Any]:
    """Counts, bytes, identities, and the kinds of index in use."""
    kinds: dict[str, int] = {}
    for segment in manifest.segments:
        kinds[segment.kind] = kinds.get(segment.kind, 0) + segment.passages
    return {
        "path": str(folder),
        "format": manifest.format,
        "generation": manifest.generation,
        "documents": manifest.documents,
        "passages": manifest.passages,
        "tombstones": manifest.tombstones,
        "segments": len(manifest.segments),
        "bytes": sum(s.bytes for s in manifest.segments) + sum(p.stat().st_size for p in folder.glob(f"{DATABASE}*")),
        "encoder": manifest.encoder.identity or "none (BM25 only)",
        "dim": manifest.dim,
        "analyzer": manifest.analyzer.identity,
        "chunker": manifest.chunker.identity,
        "index": manifest.index,
        "passages_by_index": kinds,
        "note": f"compact builds the index; a segment of fewer than {ann.SMALLEST} passages, and what was added since, is searched exactly",
    }


def verify_corpus(store: Store, snapshot: Snapshot) -> None:
    """Raise `CorpusDamaged` naming the first thing that is wrong."""
    try:
        _verify(store, snapshot)
    except CorpusDamaged:
        if store.generation() != snapshot.generation:  # a commit came in between: what was compared belongs to two states
            raise PassagesGone("the state that was being verified") from None
        raise


def _verify(store: Store, snapshot: Snapshot) -> None:
    path = store.folder / DATABASE
    store.check_integrity()
    for segment in snapshot.segments:
        segment.verify()
    row, per_document = 0, dict[str, int]()
    rowids = snapshot.rowids
    for rowid, passage in store.each_passage():  # this checks each passage's own checksum
        if row >= len(rowids) or rowids[row] != rowid:
            raise CorpusDamaged(f"{path}: passage {passage.id!r} is in the database and in no segment; restore a copy or index again")
        row += 1
        per_document[passage.document] = per_document.get(passage.document, 0) + 1
    if row != len(rowids):
        raise CorpusDamaged(f"{path}: {len(rowids)} passages are in the segments and {row} in the database; restore a copy or index again")
    for document in store.documents():
        if per_document.pop(document.id, 0) != document.passages:
            raise CorpusDamaged(f"{path}: document {document.id!r} should have {document.passages} passages; restore a copy or index again")
    if per_document:
        raise CorpusDamaged(f"{path}: passages of {next(iter(per_document))!r} have no document; restore a copy or index again")
    for segment in snapshot.segments:
        if segment.record.kind != "none" and segment.vectors().shape[0] != len(segment.rowids):
            raise CorpusDamaged(f"{segment.folder}: vectors and passages differ in number; restore a copy or index again")
        if np.any(np.diff(segment.rowids) <= 0):
            raise CorpusDamaged(f"{segment.folder}: the passages are out of order; restore a copy or index again")
