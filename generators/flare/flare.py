"""FLARE-direct: Jiang et al., "Active Retrieval Augmented Generation", EMNLP 2023 (arXiv 2305.06983), section 3.2.

The model writes a sentence ahead. If it is sure of every token, the sentence stands; if not, the sentence itself says what to search for,
and is written again with what was found.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from generators.flare.draft import Draft
from generators.flare.presets import preset
from generators.flare.prompts import Task, ask_chat, check_task, write_chat
from generators.flare.query import masked, terms
from generators.flare.sentence import Sentence, sentence_of
from generators.models.together import together
from generators.needs import check_offers
from generators.retrieval import append, interleave, retrieve
from generators.sentences import beyond_first_sentence
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import Doubted, TokensWritten, count, emit, listening, note
from rag.core.types import Answer, Filter, Hit, Sampling
from retrievers.prompting import Language, check_language, check_positive, check_question, prompt_language


@component
class Flare:
    """Write sentence by sentence, and search before each sentence that holds a token of a probability below ``theta``.

    ``theta`` 0 never searches again, 1 searches unless the model is certain, above 1 always. The ``query`` is the sentence without its
    tokens below ``beta`` ("implicit"), or a question for each stretch of them ("explicit": one more call of the model each), cut to its
    last ``max_query_tokens`` tokens; ``k`` documents come of it. A sentence is the first of ``look_ahead`` tokens.

    ``first_retrieval`` searches for the question and writes the first sentence with what it finds. ``keep_first`` leaves these documents
    in every prompt, before the others; ``keep_context`` leaves those of the last search in the look-ahead, which the paper writes without
    any. ``max_tokens`` is the length of the whole answer, ``task`` the kind of it, ``language`` that of the prompts.

    Needs a model with "logprobs"; one with "prefix" continues its text exactly, another is shown it.
    """

    def __init__(
        self,
        model: LanguageModel,
        k: int = 2,
        max_tokens: int = 256,
        language: Language = "auto",
        theta: float = 0.8,
        beta: float = 0.4,
        query: Literal["implicit", "explicit"] = "implicit",
        look_ahead: int = 64,
        max_query_tokens: int = 64,
        first_retrieval: bool = True,
        keep_first: bool = False,
        keep_context: bool = False,
        task: Task = "answer",
    ) -> None:
        for value, name in ((k, "k"), (max_tokens, "max_tokens"), (look_ahead, "look_ahead"), (max_query_tokens, "max_query_tokens")):
            check_positive(value, name, "Flare")
        check_language(language, "Flare")
        check_task(task, "Flare")
        if not _number(theta) or theta < 0:
            raise InputError(f"Flare: theta is a probability from 0 (never search) to 1, or above 1 (always search), not {theta!r}")
        if not _number(beta) or not 0 <= beta <= 1:
            raise InputError(f"Flare: beta is a probability from 0 (mask nothing) to 1, not {beta!r}")
        if query not in ("implicit", "explicit"):
            raise InputError(f"Flare: query must be 'implicit' or 'explicit', not {query!r}")
        if keep_first and not first_retrieval:
            raise InputError("Flare: keep_first keeps the documents of the first retrieval, so it needs first_retrieval=True")
        check_offers(model, "Flare", "logprobs", "to see where it is unsure")
        self.model = model
        self.k = k
        self.max_tokens = max_tokens
        self.language = language
        self.theta = theta
        self.beta = beta
        self.query = query
        self.look_ahead = look_ahead
        self.max_query_tokens = max_query_tokens
        self.first_retrieval = first_retrieval
        self.keep_first = keep_first
        self.keep_context = keep_context
        self.task = task

    @classmethod
    def preset(cls, model: LanguageModel, name: str, **changes: Any) -> Flare:
        """The paper's settings for "2wiki", "strategyqa", "asqa", "asqa-hint" or "wikiasp" (its tables 7 and 9), with ``changes``."""
        return cls(model, **{**preset(name), **changes})

    async def run(self, question: str, retriever: Retriever, filter: Filter | None = None) -> Answer:
        """Answer ``question``, searching under ``filter``. Counts "steps", "sentences", "triggered" and "questions" in the trace.

        The calls of the model are steps + triggered + questions. Raises `InputError` if the question is empty or passes the window; the
        retriever's errors pass through.
        """
        question = check_question(question)
        language = prompt_language(self.language, question)
        draft = Draft(self.model, partial(write_chat, self.task, language, question), self.max_tokens)
        search = partial(retrieve, retriever, k=self.k, filter=filter)

        first = await draft.show(await search(question) if self.first_retrieval else [])
        always = first if self.keep_first else []
        documents, sure = first, bool(first)  # the first sentence is written from documents: there is nothing to doubt yet
        while not draft.ended:
            count(steps=1)
            sentence = await self._next(draft, documents)
            if self._doubted(sentence, sure):
                queries = await self._queries(sentence, draft.text, question, language)
                self._tell(sentence, queries)
                found = interleave(await together(map(search, queries)), self.k)
                if found and (shown := await draft.show(append(always, found, len(always) + self.k))):
                    count(triggered=1)
                    documents = shown
                    sentence = await self._next(draft, documents)
                else:
                    note("nothing was found, or nothing that fits; the sentence stays")
            self._accept(draft, sentence)
            documents, sure = documents if self.keep_context else always, False
        return draft.answer()

    async def _next(self, draft: Draft, documents: Sequence[Hit]) -> Sentence:
        sampling = Sampling(max_tokens=min(self.look_ahead, draft.room), stop=("\n\n",), logprobs=0, until=beyond_first_sentence)
        return sentence_of(await draft.ahead(documents, sampling))

    def _doubted(self, sentence: Sentence, sure: bool) -> bool:
        if sure:
            note(f"{sentence.text.strip()!r}: written from the first retrieval, so it stands")
        if sure or not sentence.text:
            return False
        weakest = sentence.weakest
        doubted = weakest.probability < self.theta
        verdict = f"{weakest.probability:.3g}, {'' if doubted else 'not '}below theta={self.theta:g}"
        note(f"{sentence.text.strip()!r}: the lowest probability is that of {weakest.text!r}, {verdict}")
        return doubted

    async def _queries(self, sentence: Sentence, before: str, question: str, language: str) -> list[str]:
        """What to search for; nothing where masking leaves no word."""
        if self.query == "implicit":
            query = masked(sentence.pieces, self.beta, self.max_query_tokens)
            queries = [query] if re.search(r"\w", query) else []
        else:
            queries = await self._questions(sentence, before + sentence.text, question, language)
        note(f"searches for {', '.join(map(repr, queries))}" if queries else "masking leaves no word to search for")
        return queries

    async def _questions(self, sentence: Sentence, written: str, question: str, language: str) -> list[str]:
        found = terms(sentence.pieces, self.beta)
        count(questions=len(found))
        sampling = Sampling(max_tokens=self.max_query_tokens, stop=("\n",))
        asked = await together(self.model.agenerate(ask_chat(language, question, written, term), sampling) for term in found)
        texts = dict.fromkeys(generation.text.strip() for generation in asked)
        whole = masked(sentence.pieces, 0.0, self.max_query_tokens)
        return [text for text in texts if text.endswith(("?", "？"))] or ([whole] if re.search(r"\w", whole) else [])

    def _tell(self, sentence: Sentence, queries: Sequence[str]) -> None:
        if listening():
            weak = tuple((piece.text, piece.probability) for piece in sentence.pieces if piece.probability < self.theta)
            emit(Doubted(sentence.text.strip(), weak, self.theta, tuple(queries)))

    def _accept(self, draft: Draft, sentence: Sentence) -> None:
        if sentence.last:
            draft.end()
        if sentence.text:
            count(sentences=1)
            draft.accept(sentence.text, max(1, len(sentence.tokens)), sentence.tokens)
            if listening() and sentence.pieces:
                emit(TokensWritten(tuple((piece.text, piece.probability) for piece in sentence.pieces)))


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
