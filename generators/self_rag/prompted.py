"""The vocabulary for any model with log-probabilities: the four judgements as the probabilities of words that answer a short question."""

from __future__ import annotations

from collections.abc import Mapping

from generators.continuing import begun
from generators.models.together import together
from generators.passages import passage_data
from generators.prompts import render
from generators.self_rag.labels import LabelReader
from generators.self_rag.scores import ABSENT, ISREL, ISSUP, ISUSE, RETRIEVE, Segment, without_control
from generators.sentences import beyond_first_sentence, first_sentence
from generators.shots import shots
from rag.core.protocols import LanguageModel
from rag.core.types import Hit, Message, Prompt, Sampling
from retrievers.prompting import Language, as_data, prompt_language

LOOK_AHEAD = 64
"""Tokens written at once when one sentence is wanted."""

# In the order of the groups' own labels.
_LABELS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "en": {
        "retrieve": ("yes", "no"),
        "relevance": ("relevant", "irrelevant"),
        "support": ("fully", "partially", "no"),
        "utility": ("1", "2", "3", "4", "5"),
    },
    "zh": {
        "retrieve": ("是", "否"),
        "relevance": ("相关", "无关"),
        "support": ("完全", "部分", "没有"),
        "utility": ("1", "2", "3", "4", "5"),
    },
}


_SHOWN_IN_TURNS = ("relevance", "support")
"""Judgements whose examples are turns of the chat: written beside the rules, they leave a model of 135M parameters at chance or worse. For
the other two judgements the rules are the better place."""


class Prompted:
    """Asks for each judgement in a prompt of its own and reads how likely each verdict is as the first word of the reply.

    A segment is one sentence with ``by_sentence``, else all that the model writes. ``language`` is that of the prompts.
    """

    description = "judged by prompts: the probabilities of words stand for Self-RAG's reflection tokens"
    spare = 256

    def __init__(self, model: LanguageModel, language: Language, by_sentence: bool) -> None:
        self._model = model
        self._language: Language = language
        self._by_sentence = by_sentence
        self._labels = LabelReader(model)

    def prompt(self, question: str, hit: Hit | None, answer: str) -> Prompt:
        """A chat with the passage and the question, whose answer begins with ``answer``."""
        language = prompt_language(self._language, question)
        fields = {"question": as_data(question)} | ({"passage": passage_data(hit.passage)} if hit else {})
        chat = [
            Message("system", render(f"self_rag/write_{'long' if self._by_sentence else 'short'}_system", language)),
            Message("user", render("self_rag/write" if hit else "self_rag/write_alone", language, **fields)),
        ]
        return begun(self._model, chat, as_data(answer))

    async def retrieval(self, question: str, answer: str) -> tuple[float, bool]:
        """See `Vocabulary`."""
        yes, no = await self._verdict("retrieve", question, question=question, answer=answer or "-")
        return RETRIEVE.score((yes, no)), yes > no

    async def segment(self, question: str, hit: Hit | None, answer: str, max_tokens: int) -> Segment:
        """See `Vocabulary`. The answer is complete when the model stops by itself within the segment."""
        length = min(max_tokens, LOOK_AHEAD) if self._by_sentence else max_tokens
        sampling = Sampling(max_tokens=length, logprobs=0, until=beyond_first_sentence if self._by_sentence else None)
        generation = await self._model.agenerate(self.prompt(question, hit, answer), sampling)
        written = first_sentence(generation.text) if self._by_sentence else generation.text.rstrip()
        text = without_control(written)
        if not text.strip():
            return Segment("", hit)
        relevance, support, utility = await self._judged(question, hit, answer, text)
        whole = not generation.text[len(written) :].strip()
        return Segment(
            text,
            hit,
            ISREL.score(relevance),
            ISSUP.score(support),
            ISUSE.score(utility),
            contradicted=support[-1] > max(support[:-1]),
            ended=whole and (generation.finish == "stop" or length == max_tokens),
            cut=whole and generation.finish == "length" and length == max_tokens,
            tokens=tuple(token for token in generation.tokens if token.start < len(written)),
        )

    async def _judged(self, question: str, hit: Hit | None, answer: str, text: str) -> list[list[float]]:
        """The log-probabilities of the labels of ISREL, ISSUP and ISUSE for ``text`` behind ``answer``."""
        utility = self._verdict("utility", question, question=question, answer=f"{answer}{text}")
        if hit is None:
            return [[ABSENT] * len(ISREL.tokens), [ABSENT] * len(ISSUP.tokens), await utility]
        passage = passage_data(hit.passage)
        relevance = self._verdict("relevance", question, question=question, passage=passage)
        support = self._verdict("support", question, passage=passage, segment=text.strip())
        return await together([relevance, support, utility])

    async def _verdict(self, name: str, asked: str, **fields: str) -> list[float]:
        """The log-probability of each label of the judgement ``name``, in the language of the question ``asked``."""
        language = prompt_language(self._language, asked)
        chat = [
            Message("system", render(f"self_rag/{name}_system", language)),
            *(shots(f"self_rag/{name}_shots", language) if name in _SHOWN_IN_TURNS else ()),
            Message("user", render(f"self_rag/{name}", language, **{key: as_data(value) for key, value in fields.items()})),
        ]
        return await self._labels.logprobs(chat, _LABELS[language][name])
