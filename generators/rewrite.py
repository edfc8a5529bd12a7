"""A question becomes a search query: keywords instead of a sentence, for retrievers that match words.

Ma, Gong, He, Zhao and Duan, "Query Rewriting for Retrieval-Augmented Large Language Models", EMNLP 2023 (arXiv 2305.14283).
"""

from __future__ import annotations

import re

from generators.prompts import render
from generators.shots import on_topic, shots
from generators.write import most_that_fit
from rag.core.protocols import LanguageModel
from rag.core.registry import component
from rag.core.trace import note
from rag.core.types import Generation, Message, Sampling
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language

_LABEL = re.compile(r"^(?:(?:search )?(?:keywords?|quer(?:y|ies))|关键词|查询)\s*[:：]\s*", re.IGNORECASE)
_QUOTES = " \t\"'“”‘’「」*`"


@component
class Rewrite:
    """Let ``model`` turn a question into keywords, in at most ``max_tokens`` tokens. ``language`` is that of the prompt.

    A reply without a usable line (empty, cut off, or without any content word of the question) gives the question itself, with a note:
    searching must not get worse because a model rambled.
    """

    def __init__(self, model: LanguageModel, max_tokens: int = 48, language: Language = "auto") -> None:
        check_positive(max_tokens, "max_tokens", "Rewrite")
        check_language(language, "Rewrite")
        self.model = model
        self.max_tokens = max_tokens
        self.language = language

    async def run(self, question: str) -> str:
        """The query for ``question``. Raises `InputError` if the question is empty or too long for the model."""
        question = check_question(question)
        language = prompt_language(self.language, question)
        rules = Message("system", render("rewrite/system", language))
        prompt = [rules, *shots("rewrite/shots", language), Message("user", as_data(question))]
        await most_that_fit(self.model, lambda _: prompt, 0, self.max_tokens)
        query = _keywords(await self.model.agenerate(prompt, Sampling(max_tokens=self.max_tokens)), question)
        if not query:
            note("the model wrote no usable query; the question itself is searched")
            return question
        note(f"query: {query}")
        return query


def _keywords(reply: Generation, question: str) -> str:
    """The first line of ``reply`` without label and quotes, "" if it is cut off or has no content word in common with ``question``."""
    first, line_ended, _ = reply.text.strip().partition("\n")
    query = _LABEL.sub("", first.strip(_QUOTES)).strip(_QUOTES)
    cut_off = reply.finish == "length" and not line_ended
    return "" if cut_off or not on_topic(query, question) else query
