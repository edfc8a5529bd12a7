"""Retrieval and generation in turns: a whole answer, added to the question, is the next query.

Shao et al., "Enhancing Retrieval-Augmented Large Language Models with Iterative Retrieval-Generation Synergy" (ITER-RETGEN), Findings of
EMNLP 2023, section 3.
"""

from __future__ import annotations

import re
from contextlib import nullcontext

from generators.citations import MARKER
from generators.cited import Cited
from generators.retrieval import retrieve
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import TextDelta, count, emit, note, undertone
from rag.core.types import Answer, Filter
from retrievers.prompting import Language, check_language, check_positive, check_question

_MARKED = re.compile(rf"\s*{MARKER.pattern}")


@component
class IterRetGen:
    """Answer ``rounds`` times, each time from the ``k`` passages found with the answer before it and the question; keep the last answer.

    The answers are those of `Cited`, whose markers and refusals stay out of the queries. With ``rounds=1`` this is `Cited`. A round whose
    query would equal the one before it is a fixed point (the same passages, the same greedy answer) and ends the run.
    """

    def __init__(self, model: LanguageModel, k: int = 4, rounds: int = 2, max_tokens: int = 256, language: Language = "auto") -> None:
        for name, value in (("k", k), ("rounds", rounds), ("max_tokens", max_tokens)):
            check_positive(value, name, "IterRetGen")
        check_language(language, "IterRetGen")
        self.model = model
        self.k = k
        self.rounds = rounds
        self.max_tokens = max_tokens
        self.language = language

    async def run(self, question: str, retriever: Retriever, filter: Filter | None = None) -> Answer:
        """The answer of the last round, with its sources and citations; the answers before it are notes in the trace.

        Only the last round streams. After a fixed point its text goes out in one piece. Raises what `Cited.run` raises.
        """
        question = check_question(question)
        reader = Cited(self.model, self.k, self.max_tokens, self.language)
        query, turn = question, 1
        while True:
            hits = await retrieve(retriever, query, self.k, filter)
            with nullcontext() if turn == self.rounds else undertone():
                answer = await reader.read(question, hits)
            count(steps=1)
            note(f'round {turn}: query "{query}", answer "{answer.text}"')
            if turn == self.rounds:
                return answer
            following = _next_query(answer, question)
            if following == query:
                note(f"stopped after round {turn} of {self.rounds}: the next query would be the same")
                emit(TextDelta(answer.text))
                return answer
            query, turn = following, turn + 1


def _next_query(answer: Answer, question: str) -> str:
    """The answer before the question (y_{t-1} ‖ q), on one line; the question alone after a refusal, which tells nothing to search for."""
    said = "" if answer.refused else " ".join(_MARKED.sub("", answer.text).split())
    return f"{said} {question}".strip()
