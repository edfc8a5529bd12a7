"""Lexical search by BM25 (Robertson & Zaragoza 2009) on precomputed scores (Lù 2024, "BM25S"), over the whole corpus at once.

Every segment keeps raw term frequencies only. Document frequencies, their number and the average length are taken over the live passages
of all segments, so that a score never depends on how the corpus was cut into segments or in which order it was built.
"""

from __future__ import annotations

import threading

from rag.core.batcher import Batcher
from rag.core.errors import InputError
from rag.core.registry import component
from rag.core.trace import count
from rag.core.types import Filter, Hit
from retrievers.corpus import Corpus
from retrievers.corpus.cache import flatten, make_hits
from retrievers.corpus.parts import TermMaker, check_identity
from retrievers.corpus.snapshot import Snapshot
from retrievers.queries import Query, check_k, check_query, group_key
from retrievers.scores import ScoreMatrix


@component
class BM25:
    """Finds passages that share words with the query.

    ``k1`` bounds what repetition of a term can add, ``b`` sets how much long passages are held back. The idf is Lucene's,
    ln(1 + (N - df + 0.5) / (df + 0.5)), the weight tf / (tf + k1 * (1 - b + b * length / average)). Passages that share no term with the
    query are no hits. Equal scores are ordered by age in the corpus. A query may have `retrievers.queries.MAX_QUERY` characters.
    """

    def __init__(self, corpus: Corpus, k: int = 10, k1: float = 0.9, b: float = 0.4, analyzer: TermMaker | None = None) -> None:
        if not k1 >= 0:
            raise InputError(f"k1 must be 0 or more, not {k1}")
        if not 0 <= b <= 1:
            raise InputError(f"b must be between 0 and 1, not {b}")
        self.corpus = corpus
        self.k = check_k(k)
        self.k1 = k1
        self.b = b
        self.analyzer = analyzer
        self._lock = threading.Lock()
        self._index: ScoreMatrix | None = None
        self._terms: TermMaker | None = None
        self._batcher: Batcher[Query, list[Hit]] = Batcher(self._search_group, max_batch=256, name="bm25", key=group_key)

    def search(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """Return at most ``k`` hits, best first. Raises `InputError` for a blank query and `CorpusError` for an empty corpus."""
        return self.search_batch([query], k, filter)[0]

    def search_batch(self, queries: list[str], k: int | None = None, filter: Filter | None = None) -> list[list[Hit]]:
        """Search for many queries at once, on all cores. Results are in the order of ``queries``."""
        for query in queries:
            check_query(query)
        k = self.k if k is None else check_k(k)
        if not queries:
            return []
        tokens = self._analyzer().tokens(queries)
        return self.corpus.read(lambda snapshot: self._on(self.corpus.searchable(snapshot), tokens, k, filter))

    async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """Like `search`; the calls in flight are answered together."""
        hits = await self._batcher(Query.of(query, self.k if k is None else k, filter))
        count(searches=1)
        return hits

    async def run(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """As a node of a pipeline."""
        return await self.asearch(query, k, filter)

    def _search_group(self, group: list[Query]) -> list[list[Hit]]:
        return self.search_batch([query.text for query in group], group[0].k, group[0].filter)

    def _on(self, snapshot: Snapshot, tokens: list[list[str]], k: int, filter: Filter | None) -> list[list[Hit]]:
        index = self._matrix(snapshot)
        allowed = snapshot.allowed(self.corpus.store, filter)
        hits: list[list[Hit]] = []
        for rows, scores in index.search(tokens, min(k, len(snapshot)), allowed):
            rowids, flat, sizes = flatten(snapshot.rowids[rows], scores, scores > 0)
            hits.extend(make_hits(self.corpus.passages(rowids), flat, sizes, "BM25", self.corpus.name))
        return hits

    def _matrix(self, snapshot: Snapshot) -> ScoreMatrix:
        with self._lock:
            if self._index is None or self._index.generation != snapshot.generation:
                self._index = None  # free the old one before the new one is built
                self._index = ScoreMatrix(snapshot, self.k1, self.b)
            return self._index

    def _analyzer(self) -> TermMaker:
        if self._terms is None:
            if self.analyzer is not None:
                check_identity(self.analyzer, self.corpus.manifest().analyzer, "analyzer", self.corpus.folder)
            self._terms = self.analyzer or self.corpus.load_analyzer()
        return self._terms
