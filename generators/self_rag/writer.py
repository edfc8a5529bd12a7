"""What both forms of Self-RAG do at each step: decide whether to retrieve, write a segment per passage, score it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from generators.models.together import together
from generators.self_rag.scores import Segment
from generators.self_rag.vocabulary import Vocabulary
from generators.write import most_that_fit
from rag.core.errors import PromptTooLong
from rag.core.protocols import LanguageModel
from rag.core.trace import Judged, count, emit, listening, note
from rag.core.types import Hit

Mode = Literal["adaptive", "always", "never"]


@dataclass(frozen=True, slots=True)
class SegmentWriter:
    """A model, how it is asked to judge, and what its judgements weigh. The options are those of `SelfRAG`."""

    model: LanguageModel
    vocabulary: Vocabulary
    mode: Mode
    threshold: float | None
    weights: Sequence[float]
    seq_score: bool
    hard_constraints: bool

    async def retrieves(self, question: str, answer: str, max_tokens: int) -> bool:
        """Whether to retrieve before the next segment: P(Yes) / (P(Yes) + P(No)) > threshold, or as the model says without a threshold.

        Raises `InputError` if the question does not fit the model's window beside ``max_tokens``.
        """
        wanted = self.mode == "always"
        if not wanted:
            room = max_tokens + self.vocabulary.spare
            await most_that_fit(self.model, lambda _: self.vocabulary.prompt(question, None, answer), 0, room)
        if self.mode == "adaptive":
            probability, chosen = await self.vocabulary.retrieval(question, answer)
            wanted = chosen if self.threshold is None else probability > self.threshold
            bound = "the model decides" if self.threshold is None else f"threshold {self.threshold:g}"
            note(f"retrieve: {'yes' if wanted else 'no'}; P(retrieve) = {probability:.3f}, {bound}")
        count(sentences=1, triggered=int(wanted))
        return wanted

    async def candidates(self, question: str, hits: Sequence[Hit], answer: str, max_tokens: int) -> list[Segment]:
        """A segment from each of ``hits`` that fits the model's window, all written at once, in their order.

        With hard constraints, those that the model itself finds unsupported are left out. Raises `PromptTooLong` if no passage fits.
        """
        written = await together(self._from(question, hit, answer, max_tokens) for hit in hits)
        segments = [segment for segment in written if segment is not None]
        if not segments:
            raise PromptTooLong(
                f"none of {len(hits)} passages fits beside the question: the window of {self.model.name} holds {self.model.window} tokens"
                f" (max_tokens={max_tokens} included); index smaller passages or lower max_tokens"
            )
        count(segments=len(segments))
        for segment in segments:
            self._tell(segment)
        return [segment for segment in segments if not (self.hard_constraints and segment.contradicted)]

    async def alone(self, question: str, answer: str, max_tokens: int) -> Segment:
        """A segment from what the model knows."""
        segment = await self.vocabulary.segment(question, None, answer, max_tokens)
        count(segments=1)
        self._tell(segment)
        return segment

    def score(self, segment: Segment) -> float:
        """What ``segment`` is worth."""
        return segment.score(self.weights, self.seq_score)

    async def _from(self, question: str, hit: Hit, answer: str, max_tokens: int) -> Segment | None:
        room = max_tokens + self.vocabulary.spare
        if not await most_that_fit(self.model, lambda n: self.vocabulary.prompt(question, hit if n else None, answer), 1, room):
            note(f"dropped '{hit.passage.id}': it does not fit the window of {self.model.window} tokens")
            return None
        return await self.vocabulary.segment(question, hit, answer, max_tokens)

    def _tell(self, segment: Segment) -> None:
        source = f"'{segment.hit.passage.id}'" if segment.hit else "no passage"
        unsupported = self.hard_constraints and segment.contradicted and segment.hit is not None
        dropped = "; dropped: no support" if self.hard_constraints and segment.contradicted else ""
        if listening():
            judgements = (segment.relevance, segment.support, segment.utility, segment.likelihood)
            emit(Judged(segment.text, segment.hit.passage.id if segment.hit else "", self.score(segment), *judgements, unsupported))
        note(
            f"segment from {source}: score {self.score(segment):.3f}, ISREL {segment.relevance:.3f}, ISSUP {segment.support:.3f},"
            f" ISUSE {segment.utility:.3f}, likelihood {segment.likelihood:.3f}{dropped}"
        )
