"""The pipeline that `rag ask`, `rag demo` and `rag serve` use when no file names another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag.core.pipeline import Pipeline

if TYPE_CHECKING:
    from rag.cli.options import RetrieverKind
    from rag.core.protocols import LanguageModel
    from retrievers.corpus import Corpus

CANDIDATES = 50
"""Hits of each retriever before fusion."""


def build(corpus: Corpus, model: LanguageModel, retriever: RetrieverKind = "hybrid", k: int = 4, max_tokens: int = 256) -> Pipeline:
    """BM25 and dense search, fused, called by `Cited` as its retriever; or one of the two alone."""
    from generators.cited import Cited

    pipe = Pipeline()
    last = _add_search(pipe, corpus, retriever, k)
    pipe.add("answer", Cited(model, k=k, max_tokens=max_tokens))
    return pipe.connect(last, "answer.retriever")


def _add_search(pipe: Pipeline, corpus: Corpus, retriever: RetrieverKind, k: int) -> str:
    candidates = max(CANDIDATES, k)
    if retriever == "hybrid":
        from retrievers.bm25 import BM25
        from retrievers.dense import Dense
        from retrievers.fuse import Fuse

        pipe.add("sparse", BM25(corpus, k=candidates)).add("dense", Dense(corpus, k=candidates)).add("fuse", Fuse(k=k))
        pipe.connect("sparse", "fuse").connect("dense", "fuse")
        return "fuse"
    search: Any
    if retriever == "bm25":
        from retrievers.bm25 import BM25

        search = BM25(corpus, k=candidates)
    else:
        from retrievers.dense import Dense

        search = Dense(corpus, k=candidates)
    pipe.add("search", search)
    return "search"


def retriever_for(corpus: Corpus) -> RetrieverKind:
    """Hybrid, or BM25 alone for a corpus that was built without an encoder. Raises `CorpusError` if there is no corpus."""
    return "hybrid" if corpus.manifest().dim else "bm25"
