"""Self-RAG: learning to retrieve, generate and critique through self-reflection (Asai et al., ICLR 2024, arXiv 2310.11511)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

from generators.needs import check_offers
from generators.self_rag.long_form import LongForm
from generators.self_rag.prompted import Prompted
from generators.self_rag.short_form import ShortForm
from generators.self_rag.trained import Trained
from generators.self_rag.writer import Mode, SegmentWriter
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.types import Answer, Filter
from retrievers.prompting import Language, check_language, check_positive, check_question, prompt_language

Form = Literal["short", "long"]
Speech = Literal["prompted", "trained"]


@component
class SelfRAG:
    """Retrieve when it helps, write from each of ``k`` passages, let the model judge what it wrote, keep the best.

    ``form`` "short" answers once from the best passage; over ``choices``, a closed set of labels, the scores of equal answers are summed.
    "long" is a search over segments that keeps ``beam`` paths, at most ``depth`` segments deep, and cites a passage per segment.
    ``max_tokens`` bounds the whole answer.

    ``mode`` is "adaptive" (retrieve if the probability of wanting it is above ``threshold``; None: if the model says so), "always" or
    "never". ``weights`` are those of relevance, support and usefulness in a segment's score, to which ``seq_score`` adds the segment's own
    likelihood. ``hard_constraints`` drops segments that the model itself finds unsupported.

    ``vocabulary`` "trained" reads the reflection tokens of a model trained by Self-RAG (capability "token_ids"); "prompted" asks any model
    with "logprobs" for the same judgements in words. ``Answer.notes`` says which it was. ``language`` is that of the prompts.
    """

    def __init__(
        self,
        model: LanguageModel,
        k: int = 5,
        max_tokens: int = 100,
        language: Language = "auto",
        vocabulary: Speech = "prompted",
        mode: Mode = "adaptive",
        threshold: float | None = 0.2,
        weights: Sequence[float] = (1.0, 1.0, 0.5),
        seq_score: bool = False,
        hard_constraints: bool = False,
        form: Form = "short",
        choices: Sequence[str] = (),
        beam: int = 2,
        depth: int = 7,
    ) -> None:
        for name, value in {"k": k, "max_tokens": max_tokens, "beam": beam, "depth": depth}.items():
            check_positive(value, name, "SelfRAG")
        for name, text, allowed in (("vocabulary", vocabulary, Speech), ("mode", mode, Mode), ("form", form, Form)):
            if text not in get_args(allowed):
                raise InputError(f"SelfRAG: {name} must be one of {', '.join(get_args(allowed))}, not {text!r}")
        check_language(language, "SelfRAG")
        _check_threshold(threshold)
        _check_weights(weights)
        _check_choices(choices, form)
        check_offers(model, "SelfRAG", "logprobs", "to read its judgements")
        self.model = model
        self.k = k
        self.max_tokens = max_tokens
        self.language = language
        self.vocabulary = vocabulary
        self.mode = mode
        self.threshold = threshold
        self.weights = weights
        self.seq_score = seq_score
        self.hard_constraints = hard_constraints
        self.form = form
        self.choices = choices
        self.beam = beam
        self.depth = depth
        self._speech = Trained(model) if vocabulary == "trained" else Prompted(model, language, by_sentence=form == "long")
        writer = SegmentWriter(model, self._speech, mode, threshold, tuple(weights), seq_score, hard_constraints)
        self._form = ShortForm(writer, k, max_tokens, choices) if form == "short" else LongForm(writer, k, max_tokens, beam, depth)

    async def run(self, question: str, retriever: Retriever, filter: Filter | None = None) -> Answer:
        """Answer ``question`` from what ``retriever`` finds under ``filter``, if it is asked.

        Where no passage is found, or hard constraints leave none, the answer is a fixed sentence and ``refused``. Raises `InputError` if
        the question is empty or does not fit by itself, `PromptTooLong` if no passage fits beside it, and `MissingCapability` if the
        tokenizer lacks the trained vocabulary.
        """
        question = check_question(question)
        answer = await self._form.answer(question, prompt_language(self.language, question), retriever, filter)
        return replace(answer, notes=(*answer.notes, self._speech.description))


def _check_threshold(threshold: float | None) -> None:
    if threshold is not None and not (_is_number(threshold) and 0 <= threshold <= 1):
        raise InputError(f"SelfRAG: threshold is a number from 0 to 1, or None to let the model decide, not {threshold!r}")


def _check_weights(weights: Sequence[float]) -> None:
    numbers = isinstance(weights, Sequence) and all(_is_number(weight) and math.isfinite(weight) and weight >= 0 for weight in weights)
    if not numbers or len(weights) != 3:
        raise InputError(f"SelfRAG: weights are three numbers of at least 0, for relevance, support and usefulness, not {weights!r}")


def _check_choices(choices: Sequence[str], form: Form) -> None:
    if not choices:
        return
    if form != "short":
        raise InputError("SelfRAG: choices belong to form='short'; a long answer is not one of them")
    if isinstance(choices, str) or not all(isinstance(choice, str) and choice.strip() == choice != "" for choice in choices):
        raise InputError(f"SelfRAG: choices is a list of texts without white space around them, not {choices!r}")
    if len({choice.casefold() for choice in choices}) < max(len(choices), 2):
        raise InputError(f"SelfRAG: choices are at least two different labels, not {choices!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
