"""Answers by a decoder that reads the question alone and attends to passages that its encoder read before."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from generators.models.calling import called
from generators.passages import passage_data
from generators.refusing import declines, refusal
from generators.retrieval import retrieve
from generators.write import remarks, write_in_a_thread
from rag.core.errors import InputError, MissingDependency
from rag.core.protocols import Retriever
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Answer, Filter, Sampling, SamplingRequest
from retrievers.prompting import check_positive, check_question, prompt_language

if TYPE_CHECKING:
    from generators.models.stitched.reader import Contexts


@component
class Decoupled:
    """Continue the question from the ``k`` best passages, greedily, in at most ``max_tokens`` tokens. A run may ask for other sampling.

    Decoupled context processing (Li, Guo and Kumar, NeurIPS 2022, https://arxiv.org/abs/2210.05758). ``model`` is the folder of an
    encoder–decoder that learnt it (`generators.decoupled.train`), ``store`` a folder that `rag contexts build` wrote for it, or an open
    store. A passage that the store lacks, has damaged or has of another text is encoded on the spot: the trace counts ``contexts_hit``
    and ``contexts_missed``, and notes why. The order of passages makes no difference, and they take no room in the decoder's window.
    """

    def __init__(
        self, store: str | Contexts, model: str, k: int = 4, max_tokens: int = 128, dtype: str = "float32", device: str = "auto"
    ) -> None:
        check_positive(k, "k", "Decoupled")
        check_positive(max_tokens, "max_tokens", "Decoupled")
        try:
            from generators.decoupled.encoder import DecoupledEncoder
            from generators.decoupled.reader import Reader
            from generators.models.stitched.reader import Contexts
        except ImportError as error:
            raise MissingDependency(f"Decoupled needs torch and transformers ({error}): pip install 'graft-rag[cpu]'") from error
        if not isinstance(store, str | Contexts) or store == "":
            raise InputError(f"Decoupled: store is a folder that `rag contexts build` wrote, not {store!r}")
        if not isinstance(model, str) or not model:
            raise InputError(f"Decoupled: model is the folder of an encoder–decoder, not {model!r}")
        self.store = store
        self.model = model
        self.k = k
        self.max_tokens = max_tokens
        self.dtype = dtype
        self.device = device
        self._reader = Reader(DecoupledEncoder(model, dtype, device), store)

    async def run(
        self, question: str, retriever: Retriever, filter: Filter | None = None, sampling: SamplingRequest | None = None
    ) -> Answer:
        """Answer ``question`` from what ``retriever`` finds under ``filter``.

        Without any hit the answer is a fixed sentence, ``refused``. Raises `InputError` if the question is empty, `PromptTooLong` if it or
        a passage is longer than the model was made for, and what `ContextStore` raises when the store is not there or is another model's.
        """
        question = check_question(question)
        language = prompt_language("auto", question)
        hits = await retrieve(retriever, question, self.k, filter)
        if not hits:
            return refusal(language, "the retriever found no passage")
        wanted = (sampling or SamplingRequest()).applied_to(Sampling(self.max_tokens))
        ids, texts = [hit.passage.id for hit in hits], [passage_data(hit.passage) for hit in hits]
        prepared = await asyncio.to_thread(self._reader.prepare, question, ids, texts)
        count(contexts_hit=len(hits) - len(prepared.misses), contexts_missed=len(prepared.misses), tokens_reused=prepared.reused)
        for miss in prepared.misses:
            note(f"passage '{miss.id}' was encoded now: {miss.reason}{f' ({miss.detail})' if miss.detail else ''}")
        writing = write_in_a_thread(partial(self._reader.answer, prepared), prepared.question, wanted)
        generation = await called("chat", "local", self.model, writing, wanted)
        return Answer(
            generation.text,
            sources=tuple(hits),
            refused=declines(generation.text, language),
            notes=tuple(remarks(generation, wanted.max_tokens)),
            finish=generation.finish,
        )
