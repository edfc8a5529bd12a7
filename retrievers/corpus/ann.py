"""Vector indices of one segment (FAISS): which kind for which size, how they are built, and how they are read.

Scores are inner products of unit vectors, so cosines. HNSW: Malkov & Yashunin 2018; inverted lists with product quantisation: Jégou et al.
2011; the library: Douze et al. 2024.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rag.core.errors import ConfigError, CorpusDamaged, MissingDependency

if TYPE_CHECKING:
    from retrievers.corpus.segment import Segment

KINDS = ("flat", "hnsw", "ivf-sq8", "ivf-pq")
SMALLEST = 4096
"""A smaller segment stays exact whatever the name: a scan of it takes less than a millisecond."""
_AUTO = ((200_000, "flat"), (2_000_000, "hnsw"), (20_000_000, "ivf-sq8"))
"""``auto``: the kind for a corpus of fewer passages than the number; beyond the last, "ivf-pq"."""
_HNSW_LINKS, _HNSW_BUILD = 32, 200
_TRAIN_PER_LIST = 64
_BLOCK = 65_536


def load_faiss() -> Any:
    """The module. Raises `MissingDependency`."""
    try:
        import faiss
    except ImportError as error:
        raise MissingDependency("vector search needs FAISS: pip install 'graft-rag[cpu]' (or 'graft-rag[gpu]')") from error
    return faiss


def check_kind(kind: str) -> str:
    """Return ``kind`` if it names an index or "auto". Raises `ConfigError`."""
    if kind not in ("auto", *KINDS):
        raise ConfigError(f"there is no index kind {kind!r}; allowed are: auto, {', '.join(KINDS)}")
    return kind


def choose(kind: str, passages: int) -> str:
    """The kind that ``kind`` ("auto" included) means for so many passages."""
    if kind != "auto":
        return kind
    return next((name for limit, name in _AUTO if passages < limit), "ivf-pq")


def build(folder: Path, kind: str) -> str:
    """Write ``index.faiss`` beside ``vectors.npy`` in ``folder`` and return the kind; "flat" writes nothing."""
    from retrievers.corpus.segment import INDEX, VECTORS

    vectors = np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False)
    if kind == "flat" or len(vectors) < SMALLEST:
        return "flat"
    faiss = load_faiss()
    index = _empty(faiss, kind, len(vectors), vectors.shape[1])
    if not index.is_trained:
        size = min(len(vectors), max(_TRAIN_PER_LIST * index.nlist, 65_536))
        sample = np.sort(np.random.default_rng(0).choice(len(vectors), size, replace=False))
        index.train(np.ascontiguousarray(vectors[sample]))
    for start in range(0, len(vectors), _BLOCK):
        index.add(np.ascontiguousarray(vectors[start : start + _BLOCK]))
    path = folder / INDEX
    try:
        faiss.write_index(index, os.fspath(path))
    except RuntimeError as error:  # FAISS reports a full disk as a plain RuntimeError
        raise OSError(28, f"FAISS could not write it: {error}", os.fspath(path)) from error
    return kind


def read(segment: Segment) -> Any:
    """The index of ``segment``, its checksum verified. Raises `CorpusDamaged`."""
    from retrievers.corpus.segment import INDEX

    faiss = load_faiss()
    path = segment.file(INDEX)
    try:
        index = faiss.read_index(os.fspath(path))
    except RuntimeError as error:
        raise CorpusDamaged(f"{path}: FAISS cannot read it ({error}); run compact again with this version of FAISS") from error
    if index.ntotal != segment.record.passages:
        raise CorpusDamaged(f"{path}: it holds {index.ntotal} vectors where the manifest says {segment.record.passages}")
    return index


def parameters(faiss: Any, kind: str, selector: Any, probe: int, ef: int) -> Any:
    """Search parameters for one kind; ``selector`` may be None."""
    if kind == "hnsw":
        return faiss.SearchParametersHNSW(efSearch=ef, sel=selector) if selector else faiss.SearchParametersHNSW(efSearch=ef)
    return faiss.SearchParametersIVF(nprobe=probe, sel=selector) if selector else faiss.SearchParametersIVF(nprobe=probe)


def _empty(faiss: Any, kind: str, count: int, dim: int) -> Any:
    metric = faiss.METRIC_INNER_PRODUCT
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, _HNSW_LINKS, metric)
        index.hnsw.efConstruction = _HNSW_BUILD
        return index
    lists = max(16, min(int(4 * math.sqrt(count)), count // 64))
    coarse = faiss.IndexFlatIP(dim)
    if kind == "ivf-sq8":
        index = faiss.IndexIVFScalarQuantizer(coarse, dim, lists, faiss.ScalarQuantizer.QT_8bit, metric)
    else:
        index = faiss.IndexIVFPQ(coarse, dim, lists, _subquantizers(dim), 8, metric)
        index.pq.cp.min_points_per_centroid = 1
    index.cp.min_points_per_centroid = 1  # small corpora train on what they have, without a warning on the terminal
    index.own_fields = True
    coarse.this.disown()
    return index


def _subquantizers(dim: int) -> int:
    """The largest divisor of ``dim`` that gives each byte at least four dimensions (or one for tiny vectors)."""
    return max((m for m in range(1, dim // 4 + 1) if dim % m == 0), default=1)
