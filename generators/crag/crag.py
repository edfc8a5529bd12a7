"""Corrective RAG: Yan, Gu, Zhu and Ling, "Corrective Retrieval Augmented Generation", arXiv 2401.15884, algorithm 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from generators.citations import source_text
from generators.cited import Cited
from generators.crag.evaluators import Judge, Scores, evaluator_of
from generators.crag.strips import Cut, check_cut, strips_of
from generators.refusing import refusal
from generators.retrieval import retrieve
from generators.rewrite import Rewrite
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Answer, Filter, Hit, SamplingRequest
from retrievers.prompting import Language, check_positive, check_question, prompt_language

Action = Literal["correct", "incorrect", "ambiguous"]
Preset = Literal["popqa", "pubhealth", "arc", "bio"]

_PRESETS = {"popqa": (0.59, -0.99), "pubhealth": (0.5, -0.91), "arc": (0.5, -0.91), "bio": (0.95, -0.91)}
_NO_FALLBACK = "no fallback is connected"


class NotConnected:
    """What the port ``fallback`` of `CRAG` holds while it is open: a call edge needs the type `Retriever` there, which None would widen."""

    async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """Nothing is found where there is nothing."""
        return []


@component
class CRAG:
    """Judge the ``k`` passages retrieved; keep the ``keep`` best strips of good ones, search a fallback for bad ones, do both in doubt.

    ``evaluator`` scores passages and strips in [-1, 1]: "model" asks ``model`` (which must offer "logprobs"); a `Rerank` is adapted. A
    score of at least ``upper`` makes the retrieval correct; it is incorrect if all are below ``lower``. ``strips`` are three sentences, 50
    words or the whole passage. ``max_tokens``, ``language`` and ``threshold`` are those of `Cited`, which reads what is left.
    """

    def __init__(
        self,
        model: LanguageModel,
        k: int = 10,
        upper: float = 0.59,
        lower: float = -0.99,
        evaluator: Judge = "model",
        strips: Cut = "sentences",
        keep: int = 5,
        max_tokens: int = 256,
        language: Language = "auto",
        threshold: float = 0.5,
    ) -> None:
        check_positive(k, "k", "CRAG")
        check_positive(keep, "keep", "CRAG")
        check_cut(strips)
        if not (math.isfinite(upper) and math.isfinite(lower) and lower <= upper):
            raise InputError(f"CRAG: lower must not be above upper, and both must be finite; not lower={lower!r}, upper={upper!r}")
        self.model = model
        self.k = k
        self.upper = upper
        self.lower = lower
        self.evaluator = evaluator
        self.strips = strips
        self.keep = keep
        self.max_tokens = max_tokens
        self.language = language
        self.threshold = threshold
        self._evaluator = evaluator_of(evaluator, model, language)
        self._rewrite = Rewrite(model, language=language)
        self._reader = Cited(model, k, max_tokens, language, threshold)

    @classmethod
    def preset(cls, model: LanguageModel, name: Preset, **settings: Any) -> CRAG:
        """With the paper's thresholds for a data set. They were tuned for its own evaluator, whose scores are not those of `evaluator`."""
        if name not in _PRESETS:
            raise InputError(f"CRAG: there are presets for {', '.join(map(repr, _PRESETS))}, not for {name!r}")
        upper, lower = _PRESETS[name]
        return cls(model, upper=upper, lower=lower, **settings)

    async def run(
        self,
        question: str,
        retriever: Retriever,
        fallback: Retriever = NotConnected(),
        filter: Filter | None = None,
        sampling: SamplingRequest | None = None,
    ) -> Answer:
        """Answer ``question`` from what ``retriever`` and, where that does not do, ``fallback`` find; ``filter`` holds for both.

        The port ``fallback`` may stay open: then doubtful passages are used as they are, and bad ones make the answer the fixed sentence,
        ``refused``; ``notes`` say so. Raises what `Cited.read` and the evaluator raise.
        """
        question = check_question(question)
        scores = Scores(self._evaluator, question)
        hits = await retrieve(retriever, question, self.k, filter)
        judged = await scores.of([source_text(hit.passage) for hit in hits])
        action = action_for(judged, self.upper, self.lower)
        verdict = self._told(action, judged)
        knowledge = [] if action == "incorrect" else await self._refined(hits, scores)
        if action != "correct":
            seen = [hit.passage for hit in hits]
            elsewhere = await self._elsewhere(question, fallback, filter)
            knowledge += await self._refined([hit for hit in elsewhere if hit.passage not in seen], scores)
        lacking = action != "correct" and isinstance(fallback, NotConnected)
        if not knowledge:
            why = _NO_FALLBACK if lacking else "nothing else was found to answer from"
            return refusal(prompt_language(self.language, question), f"{verdict}; {why}")
        ranked = [replace(hit, rank=rank) for rank, hit in enumerate(knowledge, start=1)]
        answer = await self._reader.read(question, ranked, sampling)
        return replace(answer, notes=(f"{verdict}; {_NO_FALLBACK}", *answer.notes)) if lacking else answer

    def _told(self, action: Action, judged: Sequence[float]) -> str:
        """The verdict in words; counted, and noted with all scores."""
        best = f"{max(judged):.2f}" if judged else "none"
        verdict = f"the retrieval is {action}: best score of {len(judged)} passages {best} (upper={self.upper:g}, lower={self.lower:g})"
        note(f"{verdict}; scores: {', '.join(f'{score:.2f}' for score in judged) or 'none'}")
        count(**{action: 1})
        return verdict

    async def _elsewhere(self, question: str, fallback: Retriever, filter: Filter | None) -> list[Hit]:
        """What ``fallback`` finds for the rewritten question: the place of web search in the paper."""
        if isinstance(fallback, NotConnected):
            note(_NO_FALLBACK)
            return []
        return await retrieve(fallback, await self._rewrite.run(question), self.k, filter)

    async def _refined(self, hits: Sequence[Hit], scores: Scores) -> list[Hit]:
        """Decompose, filter, recompose: ``hits`` with the ``keep`` best strips of all of them, in the order in which they stand there."""
        strips = [(hit, strip) for hit in hits for strip in strips_of(hit.passage.text, self.strips)]
        judged = await scores.of([source_text(replace(hit.passage, text=strip)) for hit, strip in strips])
        best = sorted(range(len(strips)), key=lambda index: -judged[index])[: self.keep]
        kept: dict[str, tuple[Hit, list[str]]] = {}
        for index in sorted(best):
            hit, strip = strips[index]
            note(f"kept a strip of '{hit.passage.id}', score {judged[index]:.2f}: {strip}")
            kept.setdefault(hit.passage.id, (hit, []))[1].append(strip)
        count(strips=len(strips), kept=len(best))
        return [replace(hit, passage=replace(hit.passage, text=" ".join(texts))) for hit, texts in kept.values()]


def action_for(scores: Sequence[float], upper: float, lower: float) -> Action:
    """Correct if one score reaches ``upper``, incorrect if all are below ``lower`` (or there are none), else ambiguous (section 4.3)."""
    if any(score >= upper for score in scores):
        return "correct"
    return "incorrect" if all(score < lower for score in scores) else "ambiguous"
