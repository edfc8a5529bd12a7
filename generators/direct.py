"""The model alone, without retrieval: the baseline every other method is measured against."""

from __future__ import annotations

from generators.needs import check_offers
from generators.prompts import render
from generators.write import most_that_fit, remarks, write
from rag.core.protocols import LanguageModel
from rag.core.registry import component
from rag.core.types import Answer, Message, Sampling, SamplingRequest
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language


@component
class Direct:
    """Answer from what ``model`` knows, greedily, in at most ``max_tokens`` tokens. ``language`` is that of the prompt. A run may ask for
    other sampling.

    With ``confidence``, the log-probabilities of the answer are counted in the trace, for a plot of calibration in `rag eval --html`.
    """

    def __init__(self, model: LanguageModel, max_tokens: int = 256, language: Language = "auto", confidence: bool = False) -> None:
        check_positive(max_tokens, "max_tokens", "Direct")
        check_language(language, "Direct")
        if confidence:
            check_offers(model, "Direct", "logprobs", "to tell its confidence")
        self.model = model
        self.max_tokens = max_tokens
        self.language = language
        self.confidence = confidence

    async def run(self, question: str, sampling: SamplingRequest | None = None) -> Answer:
        """Answer ``question``, which must not be empty and must fit the model's window beside ``max_tokens`` (`InputError`)."""
        question = check_question(question)
        prompt = [Message("user", render("direct", prompt_language(self.language, question), question=as_data(question)))]
        wanted = (sampling or SamplingRequest()).applied_to(Sampling(self.max_tokens, logprobs=0 if self.confidence else None))
        await most_that_fit(self.model, lambda _: prompt, 0, wanted.max_tokens)
        generation = await write(self.model, prompt, wanted)
        return Answer(generation.text, notes=tuple(remarks(generation, wanted.max_tokens)), finish=generation.finish)
