"""The pipeline that `rag ask`, `rag demo` and `rag serve` use when no file names another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag.core.errors import ConfigError
from rag.core.pipeline import Pipeline

if TYPE_CHECKING:
    from pathlib import Path

    from rag.cli.options import RetrieverKind
    from rag.core.protocols import LanguageModel
    from retrievers.corpus import Corpus

CANDIDATES = 50
"""Hits of each retriever before fusion."""


def build(
    corpus: Corpus,
    model: LanguageModel,
    retriever: RetrieverKind = "hybrid",
    k: int = 4,
    max_tokens: int = 256,
    contexts: Path | None = None,
) -> Pipeline:
    """BM25 and dense search, fused, called by `Cited` as its retriever; or one of the two alone.

    With the store ``contexts`` it is `Stitched` that answers, by a `VLLM` whose server has that store.
    """
    pipe = Pipeline()
    last = _add_search(pipe, corpus, retriever, k)
    pipe.add("answer", _answer(model, k, max_tokens, contexts))
    return pipe.connect(last, "answer.retriever")


def _answer(model: LanguageModel, k: int, max_tokens: int, contexts: Path | None) -> Any:
    if contexts is None:
        from generators.cited import Cited

        return Cited(model, k=k, max_tokens=max_tokens)
    from generators.models.vllm import VLLM
    from generators.stitched import Stitched

    if not isinstance(model, VLLM):
        raise ConfigError("contexts are handed to a vLLM server: add --engine vllm")
    model.contexts = True
    return Stitched(str(contexts), model, k=k, max_tokens=max_tokens)


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
