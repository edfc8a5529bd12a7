"""Chain-of-note: a short note on each passage first, then the answer from the notes, or none if no passage says anything.

After Yu et al., "Chain-of-Note: Enhancing Robustness in Retrieval-Augmented Language Models", EMNLP 2024 (arXiv 2311.09210). There one
generation writes all notes and the answer, by a model trained for it; here each note is a call of its own, all in flight together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from generators.citations import source_text
from generators.cited import Cited
from generators.models.together import together
from generators.passages import passage_data
from generators.prompts import render
from generators.refusing import refusal
from generators.retrieval import retrieve
from generators.support import support
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Answer, Filter, Hit, Message, Sampling, SamplingRequest
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language

_IRRELEVANT = re.compile(r"\W*(?:(?:the|this) passage is )?(?:not relevant|irrelevant)\b|\W*(?:段落|与问题)*无关", re.IGNORECASE)


@component
class ChainOfNote:
    """Let ``model`` write a note on each of the ``k`` best passages, and answer from the notes on those that are relevant.

    A note that its passage does not support (by words and numbers, as `Cited` checks a claim, at ``threshold``) is not used: the passage
    itself stands in its place. So the notes hold nothing that the sources do not. ``note_tokens`` bounds a note, ``max_tokens`` the answer.
    """

    def __init__(
        self,
        model: LanguageModel,
        k: int = 5,
        max_tokens: int = 256,
        note_tokens: int = 64,
        language: Language = "auto",
        threshold: float = 0.5,
    ) -> None:
        check_positive(k, "k", "ChainOfNote")
        check_positive(max_tokens, "max_tokens", "ChainOfNote")
        check_positive(note_tokens, "note_tokens", "ChainOfNote")
        check_language(language, "ChainOfNote")
        if not 0 < threshold <= 1:
            raise InputError(f"ChainOfNote: threshold must be above 0 and at most 1, not {threshold!r}")
        self.model = model
        self.k = k
        self.max_tokens = max_tokens
        self.note_tokens = note_tokens
        self.language = language
        self.threshold = threshold
        self._reader = Cited(model, k, max_tokens, language, threshold)

    async def run(
        self, question: str, retriever: Retriever, filter: Filter | None = None, sampling: SamplingRequest | None = None
    ) -> Answer:
        """Answer ``question`` from notes on what ``retriever`` finds under ``filter``; the citations point to the passages.

        The answer is the fixed sentence, ``refused``, if nothing is found or no passage is relevant. Raises `InputError` for an empty
        question and `PromptTooLong` if a passage does not fit beside it.
        """
        question = check_question(question)
        language = prompt_language(self.language, question)
        hits = await retrieve(retriever, question, self.k, filter)
        notes = await together(self._note(question, hit, language) for hit in hits)
        relevant = [(hit, text) for hit, text in zip(hits, notes, strict=True) if text]
        count(notes=len(hits), relevant=len(relevant))
        if not relevant:
            return refusal(language, f"none of {len(hits)} passages is relevant" if hits else "the retriever found no passage")
        noted = [replace(hit, passage=replace(hit.passage, text=text)) for hit, text in relevant]
        answer = await self._reader.read(question, noted, sampling)
        return _pointing_to(answer, [hit for hit, _ in relevant])

    async def _note(self, question: str, hit: Hit, language: str) -> str:
        """What ``hit`` says about ``question``, "" if it is not relevant."""
        irrelevant = render("chain_of_note/irrelevant", language)
        prompt = [
            Message("system", render("chain_of_note/note_system", language, irrelevant=irrelevant)),
            Message(
                "user",
                render("chain_of_note/note", language, passage=passage_data(hit.passage), question=as_data(question)),
            ),
        ]
        text = (await self.model.agenerate(prompt, Sampling(max_tokens=self.note_tokens))).text.strip()
        if not text or _IRRELEVANT.match(text):
            note(f"'{hit.passage.id}' is not relevant")
            return ""
        if not support(text, source_text(hit.passage)).passes(self.threshold):
            note(f"'{hit.passage.id}' does not support its note, and is read itself: {text}")
            return hit.passage.text
        note(f"'{hit.passage.id}': {text}")
        return text


def _pointing_to(answer: Answer, hits: Sequence[Hit]) -> Answer:
    """``answer``, which cites notes, citing the passages that they are about."""
    citations = tuple(replace(citation, passage=hits[citation.number - 1].passage) for citation in answer.citations)
    return replace(answer, citations=citations, sources=tuple(hits[: len(answer.sources)]))
