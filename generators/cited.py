"""Retrieve once, answer from the passages, cite them: the plain RAG of Lewis et al. (arXiv 2005.11401) as a prompt.

Numbered citations follow Gao et al., "Enabling Large Language Models to Generate Text with Citations" (ALCE), EMNLP 2023, section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from generators.citations import MARKER, attach, check
from generators.needs import check_offers
from generators.passages import numbered
from generators.prompts import render
from generators.refusing import declines, refusal
from generators.retrieval import retrieve
from generators.write import most_that_fit, remarks, write
from rag.core.errors import InputError, PromptTooLong
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import TextDelta, emit, note
from rag.core.types import Answer, Filter, Hit, Message, Sampling, SamplingRequest
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language


@component
class Cited:
    """Answer from the ``k`` best passages, greedily, in at most ``max_tokens`` tokens, with checked citations "[n]". A run may ask for
    other sampling.

    Every marker is checked against the passage it names: a `Citation` is valid if the passage holds at least ``threshold`` of the claim's
    content words and all of its numbers. The model's text stays as it wrote it; invalid markers are listed in ``Answer.notes``. If the
    model cites nothing, the passages that support its sentences are appended as markers, and a note says so. ``language`` is that of the
    prompt. ``confidence`` is that of `Direct`.
    """

    def __init__(
        self,
        model: LanguageModel,
        k: int = 4,
        max_tokens: int = 256,
        language: Language = "auto",
        threshold: float = 0.5,
        confidence: bool = False,
    ) -> None:
        check_positive(k, "k", "Cited")
        check_positive(max_tokens, "max_tokens", "Cited")
        check_language(language, "Cited")
        if not 0 < threshold <= 1:
            raise InputError(f"Cited: threshold must be above 0 and at most 1, not {threshold!r}")
        if confidence:
            check_offers(model, "Cited", "logprobs", "to tell its confidence")
        self.model = model
        self.k = k
        self.max_tokens = max_tokens
        self.language = language
        self.threshold = threshold
        self.confidence = confidence

    async def run(
        self, question: str, retriever: Retriever, filter: Filter | None = None, sampling: SamplingRequest | None = None
    ) -> Answer:
        """Answer ``question`` from what ``retriever`` finds under ``filter``.

        Without any hit the answer is a fixed sentence, ``refused``, and the model is not called; it is ``refused`` too when the model
        says that it does not know. Passages that do not fit the model's window are left out from the last, with a note. Raises `InputError`
        if the question is empty or does not fit by itself, and `PromptTooLong` if the best passage does not fit beside it.
        """
        question = check_question(question)
        return await self.read(question, await retrieve(retriever, question, self.k, filter), sampling)

    async def read(self, question: str, hits: Sequence[Hit], sampling: SamplingRequest | None = None) -> Answer:
        """Answer ``question`` from ``hits``, as `run` does from those it retrieves: for methods that gather passages in their own way."""
        question = check_question(question)
        language = prompt_language(self.language, question)
        if not hits:
            return refusal(language, "the retriever found no passage")
        wanted = (sampling or SamplingRequest()).applied_to(Sampling(self.max_tokens, logprobs=0 if self.confidence else None))
        kept = await most_that_fit(self.model, lambda n: cited_prompt(question, hits[:n], language), len(hits), wanted.max_tokens)
        notes = self._dropped(hits, kept, wanted.max_tokens)
        sources = hits[:kept]
        generation = await write(self.model, cited_prompt(question, sources, language), wanted)
        answer = self._checked(generation.text, sources, language, [*notes, *remarks(generation, wanted.max_tokens)])
        return replace(answer, finish=generation.finish)

    def _dropped(self, hits: Sequence[Hit], kept: int, max_tokens: int) -> list[str]:
        if kept == len(hits):
            return []
        names = ", ".join(f"'{hit.passage.id}'" for hit in hits[kept:])
        numbers = f"passages {kept + 1}–{len(hits)}" if len(hits) - kept > 1 else f"passage {len(hits)}"
        why = f"the prompt would pass the window of {self.model.window} tokens (max_tokens={max_tokens} included)"
        if kept == 0:
            raise PromptTooLong(
                f"not even the best passage {names.partition(',')[0]} fits: {why}; index smaller passages or lower max_tokens"
            )
        note(f"dropped {numbers} ({names}): {why}")
        return [f"dropped {numbers} ({names}): {why}"]

    def _checked(self, text: str, sources: Sequence[Hit], language: str, notes: list[str]) -> Answer:
        """The answer with its citations: the model's own, or those that match; none where the model declines to answer."""
        citations, invalid = check(text, sources, self.threshold)
        declined = not citations and declines(text, language)
        if not MARKER.search(text) and not declined:
            suffix, citations = attach(text, sources, self.threshold)
            if suffix:
                emit(TextDelta(suffix))
                text += suffix
                notes.append("citations added by matching the answer's words with the sources; the model gave none")
        if not declined and not any(citation.valid for citation in citations):
            invalid.append("no source supports this answer")
        return Answer(text, tuple(citations), tuple(sources), refused=declined, notes=(*notes, *invalid))


def cited_prompt(question: str, hits: Sequence[Hit], language: str) -> list[Message]:
    """Rules for citing and declining as the system's turn; the numbered passages and, last, the question as the user's.

    With the rules beside the question, a model of 135M parameters answers half as many questions rightly (XQuAD, gold and two distractors).
    """
    return [
        Message("system", render("cited_system", language, unknown=render("unknown", language))),
        Message("user", render("cited", language, passages=numbered(hits), question=as_data(question))),
    ]
