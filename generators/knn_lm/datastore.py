"""The memory of kNN-LM on disk: (vector of a context → the token that followed) for every token of a corpus."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from generators.knn_lm.manifest import MANIFEST, Manifest
from rag.core.errors import CorpusDamaged, CorpusMismatch, CorpusNotFound, InputError
from retrievers.corpus import durable
from retrievers.corpus.ann import load_faiss

if TYPE_CHECKING:
    from generators.knn_lm.decoder import Decoder, Source
    from generators.knn_lm.windows import Windows

INDEX = "index.faiss"
TOKENS = "tokens.npy"
PROBE = 32
"""Clusters that a search looks into, as in the paper (section 3)."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Nearest first, both [queries, k]: squared Euclidean ``distances`` (float32) and the ``tokens`` that followed (int64).

    Where fewer were found, the distance is infinite and the token -1.
    """

    distances: np.ndarray
    tokens: np.ndarray

    def first(self, k: int) -> Neighbours:
        """The nearest ``k`` of each query."""
        return Neighbours(self.distances[:, :k], self.tokens[:, :k])


class Datastore:
    """A finished datastore in ``folder``, its files verified and memory-mapped; several processes may read one.

    Raises `CorpusNotFound` if there is none or it is not finished, `CorpusDamaged` for files that are not those of its manifest, and
    `CorpusMismatch` for another format.
    """

    def __init__(self, folder: Path | str, probe: int = PROBE) -> None:
        self.folder = Path(folder)
        if probe < 1:
            raise InputError(f"probe is a whole number of at least 1, not {probe}")
        if not (self.folder / MANIFEST).is_file():
            raise CorpusNotFound(
                f"{self.folder}: there is no finished datastore; build it with Datastore.build, which goes on if it was stopped"
            )
        self.manifest = Manifest.read(self.folder)
        self._verify()
        self._tokens = np.load(self.folder / TOKENS, mmap_mode="r", allow_pickle=False)
        self._index = _read(self.folder / INDEX)
        self._check_shapes()
        self._index.nprobe = min(probe, self._index.nlist)

    @staticmethod
    def build(
        folder: Path | str,
        decoder: Decoder,
        texts: Sequence[str],
        windows: Windows | None = None,
        batch: int = 4,
        progress: Callable[[int, int], None] | None = None,
    ) -> Datastore:
        """Read ``texts`` once with ``decoder``, ``batch`` windows at a time, and keep what followed each token.

        A stopped call goes on with the same arguments; a finished datastore of the same arguments is returned as it is.
        ``progress(entries, all)`` hears how far it is. Raises `InputError` for an empty corpus, `CorpusMismatch` for a folder with another
        datastore, `CorpusLocked` while another process builds there, and `CorpusError` if the disk has no room.
        """
        from generators.knn_lm.build import build

        build(Path(folder), decoder, texts, windows, batch, progress)
        return Datastore(folder)

    def __len__(self) -> int:
        return self.manifest.plan.entries

    @property
    def dim(self) -> int:
        """Of a vector."""
        return self.manifest.plan.source.dim

    def check(self, source: Source) -> None:
        """Raise `CorpusMismatch` unless the vectors are those of ``source``."""
        own = self.manifest.plan.source
        for what, ours, theirs in (
            ("vectors of another dimension", own.dim, source.dim),
            ("another place in the model", own.layer, source.layer),
            ("another model", own.weights, source.weights),
            ("another tokenizer", own.tokenizer, source.tokenizer),
        ):
            if ours != theirs:
                raise CorpusMismatch(
                    f"{self.folder}: the datastore was built with {what} ({str(ours)[:16]}, not {str(theirs)[:16]}); use that model, or"
                    " build a datastore with this one"
                )

    def search(self, keys: np.ndarray, k: int) -> Neighbours:
        """The ``k`` nearest entries of each of ``keys`` [queries, dim].

        Exact below 4,096 entries, else within the ``probe`` nearest clusters. Where the datastore is smaller than k, all are found.
        Raises `InputError` for another shape, for NaN and infinity, and for k < 1.
        """
        wanted = np.ascontiguousarray(keys, dtype=np.float32)
        if wanted.ndim != 2 or wanted.shape[1] != self.dim:
            raise InputError(f"{self.folder}: its vectors are [queries, {self.dim}], not {list(wanted.shape)}")
        if not np.isfinite(wanted).all():
            raise InputError(f"{self.folder}: a vector to search with holds NaN or infinity")
        if k < 1:
            raise InputError(f"k is a whole number of at least 1, not {k}")
        distances, places = self._index.search(wanted, min(k, len(self)))
        found = places >= 0
        tokens = np.where(found, self._tokens[np.where(found, places, 0)], -1).astype(np.int64)
        return Neighbours(np.where(found, distances, np.inf).astype(np.float32), tokens)

    def _verify(self) -> None:
        if set(self.manifest.files) != {INDEX, TOKENS}:
            raise CorpusDamaged(f"{self.folder}: its manifest names the files {sorted(self.manifest.files)}; build the datastore again")
        for name, record in self.manifest.files.items():
            file = self.folder / name
            if not file.is_file() or file.stat().st_size != record.bytes or durable.sha256(file) != record.sha256:
                raise CorpusDamaged(f"{file}: it is missing or not what the manifest says (size, SHA-256); build the datastore again")

    def _check_shapes(self) -> None:
        held = (self._index.ntotal, self._index.d, self._index.nlist)
        if self._tokens.shape != (len(self),) or held != (len(self), self.dim, self.manifest.lists):
            raise CorpusDamaged(
                f"{self.folder}: its files hold {self._tokens.shape} tokens and {held} vectors, dimensions and clusters, where the manifest"
                f" says {(len(self), self.dim, self.manifest.lists)}; build the datastore again"
            )


def _read(file: Path) -> Any:
    faiss = load_faiss()
    try:
        return faiss.read_index(os.fspath(file), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise CorpusDamaged(f"{file}: FAISS cannot read it ({error}); build the datastore again with this version of FAISS") from error
