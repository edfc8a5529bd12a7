"""Who judges passages for CRAG: the writing model itself, or a cross-encoder.

The paper's evaluator is a T5-large fine-tuned for it (arXiv 2401.15884, section 4.2). These two need no training, so its thresholds,
which were tuned for that evaluator, are a starting point and not a recommendation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, Union

from generators.models.together import together
from generators.needs import check_offers
from generators.prompts import render
from rag.core.errors import InputError, ModelError
from rag.core.protocols import LanguageModel
from rag.core.registry import component
from rag.core.trace import note
from rag.core.types import Hit, Message, Passage, Sampling
from retrievers.prompting import Language, as_data, check_language, prompt_language
from retrievers.rerank import Rerank

_ALTERNATIVES = 20  # as many as any engine gives
_LABELS = {"en": (("Yes", "yes", " Yes", " yes"), ("No", "no", " No", " no")), "zh": (("是", " 是"), ("否", " 否"))}


class Evaluator(Protocol):
    """Says how much each text helps to answer a question."""

    async def ascore(self, question: str, texts: list[str]) -> list[float]:
        """One score per text, from -1 (does not help at all) to 1 (surely helps)."""
        ...


Judge = Union[Literal["model"], Rerank, Evaluator]


def evaluator_of(judge: Judge, model: LanguageModel, language: Language) -> Evaluator:
    """The evaluator that ``judge`` names: ``model`` itself for "model", a cross-encoder, or an evaluator as it is."""
    if isinstance(judge, Rerank):
        return RerankEvaluator(judge)
    if not isinstance(judge, str):
        if hasattr(type(judge), "agenerate"):  # a language model has an `ascore` too, with another meaning
            raise InputError("CRAG: evaluator is a language model; write ModelEvaluator(model), or 'model' for the one that answers")
        if hasattr(type(judge), "ascore"):
            return judge
    if judge == "model":
        return ModelEvaluator(model, language)
    raise InputError(f"CRAG: evaluator must be 'model', a Rerank, or an object with `ascore(question, texts)`, not {judge!r}")


@component
class ModelEvaluator:
    """Asks ``model`` whether a text helps, and reads P(yes) - P(no) of its first token, both scaled to add up to 1.

    One call of one token per text, all in flight together. A model with "token_ids" is asked for the labels by id; of another the 20 most
    likely tokens are read, and a text for which neither label is among them scores 0, with a note.
    """

    def __init__(self, model: LanguageModel, language: Language = "auto") -> None:
        check_offers(model, "The evaluator of CRAG", "logprobs", "to see how sure it is that a passage helps")
        check_language(language, "ModelEvaluator")
        self.model = model
        self.language = language
        self._ids: dict[str, tuple[frozenset[int], frozenset[int]]] = {}

    async def ascore(self, question: str, texts: list[str]) -> list[float]:
        """Scores in [-1, 1], in the order of ``texts``."""
        language = prompt_language(self.language, question)
        ids = await self._label_ids(language) if "token_ids" in self.model.capabilities else None
        return await together(self._score(question, text, language, ids) for text in texts)

    async def _score(self, question: str, text: str, language: str, ids: tuple[frozenset[int], frozenset[int]] | None) -> float:
        wanted = (
            Sampling(max_tokens=1, logprobs=_ALTERNATIVES)
            if ids is None
            else Sampling(max_tokens=1, logprob_ids=tuple(sorted(ids[0] | ids[1])))
        )
        generation = await self.model.agenerate(judge_prompt(question, text, language), wanted)
        top = generation.tokens[0].top if generation.tokens else ()
        yes, no = (
            math.fsum(math.exp(logprob) for id, spelled, logprob in top if (id in ids[side] if ids else spelled in _LABELS[language][side]))
            for side in (0, 1)
        )
        if yes + no == 0:
            note("the evaluator said neither yes nor no; the passage scores 0")
            return 0.0
        return (yes - no) / (yes + no)

    async def _label_ids(self, language: str) -> tuple[frozenset[int], frozenset[int]]:
        """The ids of the first tokens of "yes" and of "no", without those that begin both."""
        if language not in self._ids:
            encoded = [await together(self.model.aencode(label) for label in labels) for labels in _LABELS[language]]
            yes, no = (frozenset(ids[0] for ids in side if ids) for side in encoded)
            if not yes - no or not no - yes:
                raise ModelError(f"{self.model.name}: the labels {_LABELS[language]} begin with the same tokens; give another evaluator")
            self._ids[language] = (yes - no, no - yes)
        return self._ids[language]


def judge_prompt(question: str, text: str, language: str) -> list[Message]:
    """The prompt to which "Yes" and "No" are the only answers."""
    return [
        Message("system", render("crag/judge_system", language)),
        Message("user", render("crag/judge", language, passage=as_data(text).strip(), question=as_data(question))),
    ]


@component
class RerankEvaluator:
    """A cross-encoder as evaluator: 2σ(x) - 1 of its score x, or 2x - 1 where ``logits`` is false because its scores are probabilities.

    The models of the ms-marco family give logits; those that sentence-transformers runs with a sigmoid, such as bge-reranker,
    give probabilities.
    """

    def __init__(self, rerank: Rerank, logits: bool = True) -> None:
        self.rerank = rerank
        self.logits = logits

    async def ascore(self, question: str, texts: list[str]) -> list[float]:
        """Scores in [-1, 1], in the order of ``texts``. Raises what `Rerank` raises."""
        hits = [Hit(Passage(str(number), text), 0.0, number + 1) for number, text in enumerate(texts)]
        most = self.rerank.k  # it gives back its k best, so it is asked about k at a time; it scores them together all the same
        ranked = await together(self.rerank.run(question, hits[start : start + most]) for start in range(0, len(hits), most))
        scores = {int(hit.passage.id): hit.score for ranking in ranked for hit in ranking}
        return [math.tanh(scores[n] / 2) if self.logits else 2 * scores[n] - 1 for n in range(len(texts))]


class Scores:
    """The scores of the texts of one question. A text is judged once, however often it is asked for."""

    def __init__(self, evaluator: Evaluator, question: str) -> None:
        self._evaluator = evaluator
        self._question = question
        self._known: dict[str, float] = {}

    async def of(self, texts: Sequence[str]) -> list[float]:
        """In the order of ``texts``. Raises `ModelError` for scores that are not one number in [-1, 1] per text."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        scores = await self._evaluator.ascore(self._question, new) if new else []
        if len(scores) != len(new) or not all(-1 <= score <= 1 for score in scores):
            raise ModelError(f"CRAG: the evaluator must give one score in [-1, 1] for each of {len(new)} texts; it gave {scores!r}")
        self._known.update(zip(new, scores, strict=True))
        return [self._known[text] for text in texts]
