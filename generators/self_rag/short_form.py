"""Self-RAG in short form: one retrieval, an answer per passage, the best one or, over a closed set of labels, the sum of the votes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from generators.prompts import render
from generators.refusing import refusal
from generators.retrieval import retrieve
from generators.self_rag.scores import Segment
from generators.self_rag.writer import SegmentWriter
from generators.write import count_confidence
from rag.core.protocols import Retriever
from rag.core.trace import TextDelta, TokensWritten, emit, listening, note
from rag.core.types import Answer, Filter, Hit
from retrievers.prompting import as_data


class ShortForm:
    """Answers from one of ``k`` passages in at most ``max_tokens`` tokens. The options are those of `SelfRAG`."""

    def __init__(self, writer: SegmentWriter, k: int, max_tokens: int, choices: Sequence[str]) -> None:
        self._writer = writer
        self._k = k
        self._max_tokens = max_tokens
        self._choices = tuple(choices)

    async def answer(self, question: str, language: str, retriever: Retriever, filter: Filter | None) -> Answer:
        """Answer ``question`` with prompts in ``language``."""
        asked = self._with_choices(question, language)
        if not await self._writer.retrieves(asked, "", self._max_tokens):
            return self._chosen([await self._writer.alone(asked, "", self._max_tokens)], ())
        hits = await retrieve(retriever, question, self._k, filter)
        if not hits:
            return refusal(language, "the retriever found no passage")
        segments = await self._writer.candidates(asked, hits, "", self._max_tokens)
        if not segments:
            return refusal(language, "no passage supports an answer, and hard_constraints drops all others", hits)
        return self._chosen(segments, hits)

    def _chosen(self, segments: Sequence[Segment], hits: Sequence[Hit]) -> Answer:
        """The best of ``segments`` that say anything; with choices, the one with the most votes, given by its best segment."""
        segments = [segment for segment in segments if segment.text.strip()] or segments
        scored = [(choice_of(segment.text, self._choices), self._writer.score(segment)) for segment in segments]
        tally = votes(self._choices, scored)
        if tally:
            note("votes: " + ", ".join(f"{choice} {score:.3f}" for choice, score in tally.items()))
        winner = max(tally, key=lambda choice: tally[choice], default=None)
        in_play = [(segment, score) for segment, (choice, score) in zip(segments, scored, strict=True) if winner in (None, choice)]
        best = max(in_play, key=lambda pair: pair[1])[0]
        text = best.text.strip() if winner is None else winner
        emit(TextDelta(text))
        if listening() and best.tokens and winner is None:
            emit(TokensWritten.of(best.tokens))
        count_confidence(best.tokens)
        return Answer(text, sources=tuple(hits), notes=tuple(self._remarks(best, winner, hits)))

    def _remarks(self, best: Segment, winner: str | None, hits: Sequence[Hit]) -> list[str]:
        remarks = []
        if not best.text.strip():
            remarks.append("the model wrote no text")
        elif self._choices and winner is None:
            remarks.append(f"the model named none of the choices {', '.join(self._choices)}")
        elif best.cut and winner is None:
            remarks.append(f"the answer was cut off at max_tokens={self._max_tokens}")
        if best.hit is not None:
            number = next(n for n, hit in enumerate(hits, start=1) if hit is best.hit)
            remarks.append(f"written from source {number} ('{best.hit.passage.id}'), whose support is {best.support:.2f}")
        return remarks

    def _with_choices(self, question: str, language: str) -> str:
        if not self._choices:
            return question
        return render("self_rag/choices", language, question=question, choices=as_data(", ".join(self._choices)))


def votes(choices: Sequence[str], scored: Sequence[tuple[str | None, float]]) -> dict[str, float]:
    """The sum of the scores of each of ``choices`` that was given, in their order; ``scored`` holds (choice or None, score) of each answer.

    The sums are exact, so the order of the answers cannot turn a tie.
    """
    given = [choice for choice in choices if any(answer == choice for answer, _ in scored)]
    return {choice: math.fsum(score for answer, score in scored if answer == choice) for choice in given}


def choice_of(text: str, choices: Sequence[str]) -> str | None:
    """Which of ``choices`` the answer ``text`` gives: the longest that it begins with, else the only one that it names; None if unclear."""
    found = {choice: match.start() for choice in choices if (match := _whole(choice).search(text.strip()))}
    first = [choice for choice, at in found.items() if at == 0]
    return max(first, key=len) if first else next(iter(found)) if len(found) == 1 else None


_SPACED = re.compile(r"[0-9A-Za-z_\u00c0-\u2e7f]")


def _whole(choice: str) -> re.Pattern[str]:
    """``choice`` as whole words, in any case; Chinese, which writes no spaces, anywhere."""
    before = r"(?<!\w)" if _SPACED.match(choice) else ""
    after = r"(?!\w)" if _SPACED.match(choice[-1]) else ""
    return re.compile(before + re.escape(choice) + after, re.IGNORECASE)
