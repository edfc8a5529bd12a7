"""Search by meaning: the passages whose vectors have the largest inner product (cosine) with the query's."""

from __future__ import annotations

import threading
from typing import Literal

import numpy as np

from rag.core.batcher import Batcher
from rag.core.errors import CorpusError, InputError
from rag.core.protocols import Encoder
from rag.core.registry import component
from rag.core.trace import count
from rag.core.types import Filter, Hit
from retrievers.corpus import Corpus
from retrievers.corpus.ann import check_kind
from retrievers.corpus.cache import flatten, make_hits
from retrievers.corpus.parts import check_identity
from retrievers.corpus.snapshot import Snapshot
from retrievers.queries import Query, check_k, check_query, group_key
from retrievers.vectors import VectorIndex

IndexKind = Literal["auto", "flat", "hnsw", "ivf-sq8", "ivf-pq"]


@component
class Dense:
    """Finds passages whose vectors point the way of the query's; the score is the cosine.

    ``index`` "auto" uses whatever index a segment has (`Corpus.compact` builds them) and searches the others exactly; "flat" searches all
    exactly; the name of a kind uses only that. Approximate kinds look at ``probe`` inverted lists or keep ``ef`` candidates: more find
    more and take longer. Scores are exact for every kind. Equal scores are ordered by age in the corpus. ``encoder`` overrides the one
    that the corpus remembers and must have its identity.
    """

    def __init__(
        self,
        corpus: Corpus,
        k: int = 10,
        index: IndexKind = "auto",
        encoder: Encoder | None = None,
        probe: int = 32,
        ef: int = 128,
    ) -> None:
        if probe < 1 or ef < 1:
            raise InputError(f"probe and ef must be at least 1, not {probe} and {ef}")
        self.corpus = corpus
        self.k = check_k(k)
        self.index = check_kind(index)
        self.encoder = encoder
        self.probe = probe
        self.ef = ef
        self._lock = threading.Lock()
        self._vectors: VectorIndex | None = None
        self._ready: Encoder | None = None
        self._batcher: Batcher[Query, list[Hit]] = Batcher(self._search_group, max_batch=256, name="dense", key=group_key)

    def search(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """Return at most ``k`` hits, best first. Raises `InputError` for a blank query and `CorpusError` for an empty corpus."""
        return self.search_batch([query], k, filter)[0]

    def search_batch(self, queries: list[str], k: int | None = None, filter: Filter | None = None) -> list[list[Hit]]:
        """Search for many queries at once. Results are in the order of ``queries``."""
        for query in queries:
            check_query(query)
        k = self.k if k is None else check_k(k)
        self.corpus.read(self.corpus.searchable)  # an empty corpus should not load a model first
        return self.search_vectors(self._encoder().encode(queries, "query"), k, filter) if queries else []

    def search_vectors(self, vectors: np.ndarray, k: int | None = None, filter: Filter | None = None) -> list[list[Hit]]:
        """Search by vectors of unit length, [queries, dim]."""
        k = self.k if k is None else check_k(k)
        vectors = np.ascontiguousarray(vectors, np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.corpus.dim:
            raise InputError(f"query vectors must have the shape [queries, {self.corpus.dim}], not {list(vectors.shape)}")
        if not np.isfinite(vectors).all():
            raise InputError("a query vector holds a value that is not finite")
        return self.corpus.read(lambda snapshot: self._on(self.corpus.searchable(snapshot), vectors, k, filter)) if len(vectors) else []

    async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """Like `search`; the calls in flight are encoded and answered together."""
        hits = await self._batcher(Query.of(query, self.k if k is None else k, filter))
        count(searches=1)
        return hits

    async def run(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """As a node of a pipeline."""
        return await self.asearch(query, k, filter)

    def _search_group(self, group: list[Query]) -> list[list[Hit]]:
        return self.search_batch([query.text for query in group], group[0].k, group[0].filter)

    def _on(self, snapshot: Snapshot, vectors: np.ndarray, k: int, filter: Filter | None) -> list[list[Hit]]:
        index = self._index(snapshot)
        allowed = snapshot.allowed(self.corpus.store, filter)
        rows, scores = index.search(vectors, min(k, len(snapshot)), allowed)
        rowids, flat, sizes = flatten(snapshot.rowids[rows], scores, rows >= 0)
        return make_hits(self.corpus.passages(rowids), flat, sizes, "Dense", self.corpus.name)

    def _index(self, snapshot: Snapshot) -> VectorIndex:
        with self._lock:
            if self._vectors is None or self._vectors.generation != snapshot.generation:
                if not self.corpus.dim:
                    raise CorpusError(f"{self.corpus.folder}: it was built without an encoder, for BM25 only; build it again with one")
                self._vectors = None  # free the old one before the new one is built
                self._vectors = VectorIndex(snapshot, self.corpus.dim, self.index, self.probe, self.ef)
            return self._vectors

    def _encoder(self) -> Encoder:
        if self._ready is None:
            if self.encoder is not None:
                check_identity(self.encoder, self.corpus.manifest().encoder, "encoder", self.corpus.folder)
            self._ready = self.encoder or self.corpus.load_encoder()
            if self._ready is None:
                raise CorpusError(f"{self.corpus.folder}: it was built without an encoder, for BM25 only; build it again with one")
        return self._ready
