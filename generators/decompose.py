"""A question of several parts is searched part by part, and the rankings are merged.

The parts are asked for at once, before anything is retrieved: least-to-most prompting without its second stage (Zhou et al., ICLR 2023,
arXiv 2205.10625). A part that needs the answer of another one is the business of `SelfAsk` and `IRCoT`.
"""

from __future__ import annotations

import re

from generators.models.together import together
from generators.prompts import render
from generators.retrieval import interleave
from generators.shots import on_topic, shots
from generators.write import most_that_fit
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import Retrieved, count, emit, note
from rag.core.types import Filter, Generation, Hit, Message, Sampling
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language

_ITEM = re.compile(r"^(?:[-*+•·]|\(?\d{1,2}\s*[.)、:：）]|(?:(?:sub-?)?question|问题)\s*\d{0,2}\s*[:：])\s*", re.IGNORECASE)
_LONGEST = 400
"""Characters. A longer line is no simple question but a model that rambles."""


@component
class Decompose:
    """Let ``model`` split a question into at most ``most`` simpler ones; search the question and each of them, and interleave the rankings.

    The question itself comes first, so its own best passage stays the best. ``k`` bounds the merged ranking, ``max_tokens`` the reply of
    the model; ``language`` is that of the prompt.
    """

    def __init__(self, model: LanguageModel, most: int = 4, k: int = 10, max_tokens: int = 128, language: Language = "auto") -> None:
        check_positive(most, "most", "Decompose")
        check_positive(k, "k", "Decompose")
        check_positive(max_tokens, "max_tokens", "Decompose")
        check_language(language, "Decompose")
        self.model = model
        self.most = most
        self.k = k
        self.max_tokens = max_tokens
        self.language = language

    async def run(self, question: str, retriever: Retriever, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """At most ``k`` hits (the constructor's if None), each passage once. All searches are in flight together.

        Stands between a retriever and a method over call edges: ``search -> decompose.retriever``, ``decompose -> answer.retriever``. The
        searches then belong to the one retrieval of that method, so they are not counted as retrievals. Raises `InputError` if the
        question is empty or too long for the model, or if ``k`` is not positive.
        """
        question = check_question(question)
        k = self.k if k is None else k
        check_positive(k, "k", "Decompose")
        queries = [question, *await self._parts(question)]
        rankings = await together(retriever.asearch(query, k, filter) for query in queries)
        for query, hits in zip(queries, rankings, strict=True):
            emit(Retrieved(query, tuple(hits)))
        return interleave(rankings, k)

    async def _parts(self, question: str) -> list[str]:
        language = prompt_language(self.language, question)
        rules = Message("system", render("decompose/system", language, most=str(self.most)))
        prompt = [rules, *shots("decompose/shots", language), Message("user", as_data(question))]
        await most_that_fit(self.model, lambda _: prompt, 0, self.max_tokens)
        reply = await self.model.agenerate(prompt, Sampling(max_tokens=self.max_tokens))
        parts = [part for part in _lines(reply) if part.casefold() != question.casefold() and on_topic(part, question)][: self.most]
        for number, part in enumerate(parts, start=1):
            note(f"part {number}: {part}")
        if not parts:
            note("the model named no simpler question; only the question itself is searched")
        count(parts=len(parts))
        return parts


def _lines(reply: Generation) -> list[str]:
    """The lines of ``reply`` that may be questions, each once, without list marks; a last line that is cut off is none."""
    lines = reply.text.split("\n")
    if reply.finish == "length":
        lines.pop()
    found: dict[str, str] = {}
    for line in lines:
        part = _ITEM.sub("", line.strip()).strip()
        if re.search(r"\w", part) and not part.endswith((":", "：")) and len(part) <= _LONGEST:
            found.setdefault(part.casefold(), part)
    return list(found.values())
