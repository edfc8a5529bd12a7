"""Answers from passages that the model has read before: their keys and values come from a store, and only the question is computed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

from generators.models.calling import called
from generators.passages import passage_data
from generators.prompts import render
from generators.refusing import declines, refusal
from generators.retrieval import retrieve
from generators.write import remarks, write_in_a_thread
from rag.core.errors import InputError, MissingDependency, PromptTooLong
from rag.core.protocols import Retriever
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Answer, Filter, Generation, Hit, Sampling, SamplingRequest
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language

if TYPE_CHECKING:
    from generators.models.stitched.reader import Contexts, Reads, Ready
    from generators.models.vllm import VLLM
    from generators.models.vllm_contexts.reader import ServedReader

Attention = Literal["blocks", "full"]


@component
class Stitched:
    """Answer from the ``k`` best passages, greedily, in at most ``max_tokens`` tokens. A run may ask for other sampling.

    ``store`` is a folder that `rag contexts build` wrote for ``model``, or an open store. ``model``, ``adapter``, ``dtype`` and ``device``
    are those of `Local`; a model with learned positions or sliding windows is refused. A passage that the store lacks, has damaged or has
    of another text is encoded on the spot: the trace counts ``contexts_hit`` and ``contexts_missed``, and notes why.

    No passage sees another, so answers differ from those of a model that reads all together; ``recompute`` is the share of the passages'
    tokens that are computed again with all before them (0.15 in the paper of CacheBlend; 1 is ordinary reading). An ``adapter`` of
    `LinkTokens` puts tokens behind each passage that see all before them (KVLink).

    ``attention`` "full" is ordinary reading, which needs no store and reads none: what earlier questions have in common with this one from
    the beginning on, the same passages in the same order, is not computed again (RAGCache). Its numbers are kept in memory, up to 1 GiB.

    A `VLLM` with ``contexts`` as ``model`` answers on its server, which has the store too: it then reads all passages from there or, where
    one is missing or damaged, the prompt in full. `rag contexts check` must have certified the store for that server.
    """

    def __init__(
        self,
        store: str | Contexts | None = None,
        model: str | VLLM = "smollm2",
        adapter: str | None = None,
        k: int = 4,
        max_tokens: int = 256,
        recompute: float = 0.0,
        language: Language = "auto",
        dtype: str = "float32",
        device: str = "auto",
        attention: Attention = "blocks",
    ) -> None:
        check_positive(k, "k", "Stitched")
        check_positive(max_tokens, "max_tokens", "Stitched")
        check_language(language, "Stitched")
        if isinstance(recompute, bool) or not isinstance(recompute, int | float) or not 0 <= recompute <= 1:
            raise InputError(f"Stitched: recompute is a share from 0 to 1 of the passages' tokens, not {recompute!r}")
        if attention not in get_args(Attention):
            raise InputError(f"Stitched: attention is one of {', '.join(get_args(Attention))}, not {attention!r}")
        if attention == "full" and recompute:
            raise InputError("Stitched: with attention 'full' every token sees all before it; leave out one of the two")
        try:
            from generators.models.stitched.encoder import LocalEncoder
            from generators.models.stitched.prefix import PrefixReader
            from generators.models.stitched.reader import Contexts, Reader
        except ImportError as error:
            raise MissingDependency(f"Stitched needs torch and transformers ({error}): pip install 'graft-rag[cpu]'") from error
        if not isinstance(store, str | Contexts | None) or store == "" or (store is None and attention == "blocks"):
            raise InputError(f"Stitched: store is a folder that `rag contexts build` wrote, not {store!r} (attention 'full' needs none)")
        self.store = store
        self.model = model
        self.adapter = adapter
        self.k = k
        self.max_tokens = max_tokens
        self.recompute = recompute
        self.language = language
        self.dtype = dtype
        self.device = device
        self.attention = attention
        self._served: ServedReader | None = None
        if not isinstance(model, str):
            self._served = _on_server(model, adapter, store, recompute, attention)
            return
        encoder = LocalEncoder(model, adapter, dtype, device)
        self._reader: Reads = PrefixReader(encoder) if attention == "full" or store is None else Reader(encoder, store, recompute)

    async def run(
        self, question: str, retriever: Retriever, filter: Filter | None = None, sampling: SamplingRequest | None = None
    ) -> Answer:
        """Answer ``question`` from what ``retriever`` finds under ``filter``.

        Without any hit the answer is a fixed sentence, ``refused``. Passages that do not fit the window are left out from the last, with a
        note. Raises `InputError` if the question is empty or does not fit by itself, `PromptTooLong` if the best passage does not fit
        beside it, and what `ContextStore` raises when the store is not there or is another model's.
        """
        question = check_question(question)
        language = prompt_language(self.language, question)
        hits = await retrieve(retriever, question, self.k, filter)
        if not hits:
            return refusal(language, "the retriever found no passage")
        wanted = (sampling or SamplingRequest()).applied_to(Sampling(self.max_tokens))
        prepared = await asyncio.to_thread(self._prepared, question, language, hits, wanted.max_tokens)
        notes = _dropped(hits, prepared.passages, wanted.max_tokens)
        count(contexts_hit=prepared.hits, contexts_missed=prepared.passages - prepared.hits, tokens_reused=prepared.reused)
        for remark in prepared.notes:
            note(remark)
        generation = await self._generation(prepared, wanted)
        return Answer(
            generation.text,
            sources=tuple(hits[: prepared.passages]),
            refused=declines(generation.text, language),
            notes=(*notes, *remarks(generation, wanted.max_tokens)),
            finish=generation.finish,
        )

    def _prepared(self, question: str, language: str, hits: Sequence[Hit], max_tokens: int) -> Ready:
        from generators.models.stitched.prompt import PASSAGES

        message = render("cited", language, passages=PASSAGES, question=as_data(question))
        reader = self._served or self._reader
        return reader.prepare(message, [hit.passage.id for hit in hits], [passage_data(hit.passage) for hit in hits], max_tokens)

    async def _generation(self, prepared: Any, wanted: Sampling) -> Generation:
        if self._served is not None:
            return await self._served.written(prepared, wanted)
        writing = write_in_a_thread(partial(self._reader.answer, prepared), prepared.tokens, wanted, self.adapter)
        return await called("chat", "local", self.adapter or str(self.model), writing, wanted)


def _on_server(model: Any, adapter: str | None, store: Any, recompute: float, attention: Attention) -> ServedReader:
    from generators.models.vllm import VLLM
    from generators.models.vllm_contexts.reader import ServedReader
    from retrievers.context.store import ContextStore

    if not isinstance(model, VLLM):
        raise InputError(f"Stitched: model is a name, a folder or a VLLM, not {type(model).__name__}")
    if recompute or attention != "blocks" or not isinstance(store, str | ContextStore):
        raise InputError("Stitched: a VLLM reads a store of this machine as it is: leave out recompute and attention, and name its folder")
    return ServedReader(model if adapter is None else model.with_adapter(adapter), store)


def _dropped(hits: Sequence[Hit], kept: int, max_tokens: int) -> list[str]:
    if kept == len(hits):
        return []
    names = ", ".join(f"'{hit.passage.id}'" for hit in hits[kept:])
    why = f"the prompt would pass the window of the model (max_tokens={max_tokens} included)"
    if kept == 0:
        raise PromptTooLong(f"not even the best passage '{hits[0].passage.id}' fits: {why}; index smaller passages or lower max_tokens")
    text = f"dropped {'passages' if len(hits) - kept > 1 else 'passage'} {names}: {why}"
    note(text)
    return [text]
