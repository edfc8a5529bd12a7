"""A cross-encoder reads question and passage together and orders the hits anew."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rag.core.batcher import Batcher
from rag.core.errors import ConfigError, InputError, MissingDependency, ModelError
from rag.core.registry import component
from rag.core.trace import count
from rag.core.types import Hit
from retrievers.prompting import as_data, check_positive, check_question

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


@component
class Rerank:
    """Score each (query, passage) pair with a cross-encoder and keep the ``k`` best.

    ``model`` is a local folder or a name on the Hugging Face hub (safetensors only), loaded on first use. The pairs of all questions in
    flight are scored together, ``batch_size`` pairs per forward pass. A pair longer than the model's limit is cut, the longer text first.
    ``max_pairs`` bounds the hits of one call. ``device`` is "auto", "cpu", "cuda", "cuda:1", … Source: Nogueira and Cho, "Passage
    Re-ranking with BERT", arXiv 1901.04085.
    """

    def __init__(
        self,
        model: str = "cross-encoder/ms-marco-MiniLM-L6-v2",
        k: int = 5,
        batch_size: int = 32,
        max_pairs: int = 1000,
        device: str = "auto",
    ) -> None:
        check_positive(k, "k", "Rerank")
        check_positive(batch_size, "batch_size", "Rerank")
        check_positive(max_pairs, "max_pairs", "Rerank")
        self.model = model
        self.k = k
        self.batch_size = batch_size
        self.max_pairs = max_pairs
        self.device = device
        self._encoder: CrossEncoder | None = None
        self._scores = Batcher[tuple[str, list[str]], list[float]](self._score, name="rerank")

    async def run(self, query: str, hits: list[Hit]) -> list[Hit]:
        """Return the ``k`` best of ``hits``, best first; equal scores keep their order, and no hits give no hits.

        Raises `InputError` for an empty query or more than ``max_pairs`` hits, `ConfigError` if ``model`` is a folder that does not exist
        or gives more than one score per pair, and `ModelError` if it cannot be loaded.
        """
        check_question(query)
        if len(hits) > self.max_pairs:
            raise InputError(
                f"Rerank: {len(hits)} hits are more than max_pairs={self.max_pairs}; lower the retriever's k or raise max_pairs"
            )
        if not hits:
            return []
        scores = await self._scores((as_data(query), [as_data(hit.passage.text) for hit in hits]))
        count(pairs=len(hits))
        order = sorted(range(len(hits)), key=lambda index: -scores[index])
        name = f"rerank({hits[0].retriever or '?'})"
        return [replace(hits[index], score=scores[index], rank=rank, retriever=name) for rank, index in enumerate(order[: self.k], start=1)]

    def _score(self, questions: list[tuple[str, list[str]]]) -> list[list[float]]:
        encoder = self._load()
        pairs = [(query, text) for query, texts in questions for text in texts]
        scores = encoder.predict(pairs, batch_size=self.batch_size, show_progress_bar=False).tolist()
        if not all(math.isfinite(score) for score in scores):
            raise ModelError(
                f"Rerank: the cross-encoder '{self.model}' gave a score that is not a finite number; its weights may be damaged"
            )
        remaining = iter(scores)
        return [[next(remaining) for _ in texts] for _, texts in questions]

    def _load(self) -> CrossEncoder:
        if self._encoder is not None:
            return self._encoder
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise MissingDependency("Rerank needs sentence-transformers: pip install 'graft-rag[cpu]'") from error
        folder = Path(self.model).expanduser()
        if not folder.is_dir() and (self.model.startswith((".", "/", "~")) or self.model.count("/") > 1):
            raise ConfigError(
                f"Rerank: there is no folder '{self.model}'; give the folder of a cross-encoder or its name on the Hugging Face hub"
            )
        try:
            encoder: CrossEncoder = CrossEncoder(
                str(folder) if folder.is_dir() else self.model,
                device=None if self.device == "auto" else self.device,
                model_kwargs={"use_safetensors": True},  # never unpickle weights
            )
        except Exception as error:  # transformers and the hub raise many kinds; the reader needs the name and the reason
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"Rerank: the cross-encoder '{self.model}' cannot be loaded: {reason[0]};"
                " check the name and the network, or give a local folder"
            ) from error
        if encoder.num_labels != 1:
            raise ConfigError(f"Rerank: '{self.model}' gives {encoder.num_labels} scores per pair; give a cross-encoder with num_labels=1")
        self._encoder = encoder
        return encoder
