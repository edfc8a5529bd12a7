"""HyDE: search with the vector of documents that the model imagines, instead of that of the question alone.

Gao, Ma, Lin and Callan, "Precise Zero-Shot Dense Retrieval without Relevance Labels", ACL 2023 (arXiv 2212.10496), section 3.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from generators.models.together import together
from generators.prompts import render
from generators.write import most_that_fit
from rag.core.batcher import Batcher
from rag.core.errors import CorpusError, InputError
from rag.core.protocols import LanguageModel
from rag.core.registry import component
from rag.core.sync import run_sync
from rag.core.trace import count, note
from rag.core.types import Filter, Hit, Message, Sampling
from retrievers.corpus import Corpus
from retrievers.prompting import Language, as_data, check_language, check_positive, prompt_language
from retrievers.queries import Query, check_k, group_key

if TYPE_CHECKING:
    import numpy as np

    from retrievers.dense import Dense

Task = Literal["question", "claim", "counterargument"]


@dataclass(frozen=True, slots=True)
class _Search:
    query: Query
    documents: tuple[str, ...]


@component
class HyDE:
    """Dense search by the mean vector of the query and ``n`` documents that ``model`` imagines for it, at ``temperature``.

    The documents are written in flight together, the i-th with the seed ``seed + i``, in at most ``max_tokens`` tokens each. ``task`` says
    what they are: a passage that answers a question, one that supports or refutes a claim, or a counterargument. ``n=0`` is plain dense
    search. The corpus must have vectors. ``language`` is that of the prompt.
    """

    def __init__(
        self,
        model: LanguageModel,
        corpus: Corpus,
        n: int = 8,
        temperature: float = 0.7,
        k: int = 10,
        task: Task = "question",
        seed: int = 0,
        max_tokens: int = 128,
        language: Language = "auto",
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, int) or n < 0:
            raise InputError(f"HyDE: n, the number of documents, must be an integer of at least 0, not {n!r}")
        if not (math.isfinite(temperature) and temperature >= 0):
            raise InputError(f"HyDE: temperature must be finite and at least 0, not {temperature!r}")
        if task not in get_args(Task):
            raise InputError(f"HyDE: task must be one of {', '.join(map(repr, get_args(Task)))}, not {task!r}")
        check_positive(max_tokens, "max_tokens", "HyDE")
        check_language(language, "HyDE")
        self.model = model
        self.corpus = corpus
        self.n = n
        self.temperature = temperature
        self.k = check_k(k)
        self.task = task
        self.seed = seed
        self.max_tokens = max_tokens
        self.language = language
        self._dense: Dense | None = None
        self._searches = Batcher[_Search, list[Hit]](self._search_group, name="hyde", key=lambda search: group_key(search.query))

    def search(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """`asearch`, blocking."""
        return run_sync(self.asearch(query, k, filter))

    async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """Return at most ``k`` hits, best first; their scores are cosines with the mean vector.

        Raises `InputError` for a blank query or one too long for the model, and `CorpusError` for an empty corpus or one without vectors.
        """
        asked = Query.of(query, self.k if k is None else k, filter)
        await asyncio.to_thread(self._check_corpus)
        documents = await self._imagined(asked.text) if self.n else ()
        hits = await self._searches(_Search(asked, documents))
        count(searches=1)
        return hits

    async def run(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """As a node of a pipeline."""
        return await self.asearch(query, k, filter)

    async def _imagined(self, query: str) -> tuple[str, ...]:
        prompt = [Message("user", render(f"hyde/{self.task}", prompt_language(self.language, query), query=as_data(query.strip())))]
        await most_that_fit(self.model, lambda _: prompt, 0, self.max_tokens)
        settings = [Sampling(max_tokens=self.max_tokens, temperature=self.temperature, seed=self.seed + i) for i in range(self.n)]
        written = await together(self.model.agenerate(prompt, sampling) for sampling in settings)
        documents = tuple(text for generation in written if (text := generation.text.strip()))
        for number, text in enumerate(documents, start=1):
            note(f"document {number} of {len(documents)}: {text}")
        if len(documents) < self.n:
            note(f"{self.n - len(documents)} of {self.n} documents came out empty and are left out")
        count(documents=len(documents))
        return documents

    def _check_corpus(self) -> None:
        """An empty corpus, or one for BM25, must be known before the model writes anything."""
        self.corpus.read(self.corpus.searchable)
        if not self.corpus.dim:
            raise CorpusError(f"{self.corpus.folder}: it was built without an encoder, for BM25 only; build it again with one")

    def _search_group(self, group: list[_Search]) -> list[list[Hit]]:
        from retrievers.dense import Dense

        self._dense = self._dense or Dense(self.corpus)
        found = self._dense.search_vectors(self._vectors(group), group[0].query.k, group[0].query.filter)
        return [[replace(hit, retriever="HyDE") for hit in hits] for hits in found]

    def _vectors(self, group: list[_Search]) -> np.ndarray:
        """One unit vector per search, [searches, dim]: the mean over its query and its documents, all of equal weight."""
        import numpy as np

        encoder = self.corpus.load_encoder()
        if encoder is None:
            raise CorpusError(f"{self.corpus.folder}: it was built without an encoder, for BM25 only; build it again with one")
        # A sum in double precision is exact for unit vectors in single precision, so the order of the documents cannot matter.
        sums = encoder.encode([search.query.text for search in group], "query").astype(np.float64)
        documents = [(row, text) for row, search in enumerate(group) for text in search.documents]
        if documents:
            rows, texts = zip(*documents, strict=True)
            np.add.at(sums, np.array(rows), encoder.encode(list(texts), "passage"))
        return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), np.float32)
