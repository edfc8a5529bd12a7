"""The cheapest strategy that a question needs: no retrieval, one retrieval, or several.

Jeong et al., "Adaptive-RAG: Learning to Adapt Retrieval-Augmented Large Language Models through Question Complexity", NAACL 2024,
section 3.
"""

from __future__ import annotations

import math
import re
from typing import Literal, Protocol, Union, runtime_checkable

from generators.cited import Cited
from generators.direct import Direct
from generators.ircot import IRCoT
from generators.needs import check_offers
from generators.prompts import render
from rag.core.errors import InputError
from rag.core.protocols import LanguageModel, Retriever
from rag.core.registry import component
from rag.core.trace import count, note
from rag.core.types import Answer, Filter, Message, Sampling, SamplingRequest
from retrievers.prompting import Language, as_data, check_language, check_positive, check_question, prompt_language

_LABELS = ("A", "B", "C")
_STRATEGIES = {"A": "Direct, no retrieval", "B": "Cited, one retrieval", "C": "IRCoT, several retrievals"}


@runtime_checkable
class Classifier(Protocol):
    """Tells how complex a question is."""

    async def aclassify(self, question: str) -> str:
        """ "A": no passage is needed; "B": one retrieval suffices; "C": passages must be found by way of others."""
        ...


@component
class AdaptiveRAG:
    """Let ``classifier`` choose for each question: A is `Direct`, B is `Cited`, C is `IRCoT`.

    ``classifier`` is "rule" (`RuleClassifier`), "model" (`ModelClassifier`, with ``model``) or an object of one's own with ``aclassify``,
    such as a trained one. ``k`` is for B and C, ``max_steps`` and ``pool`` for C, ``max_tokens`` and ``language`` for all.
    """

    def __init__(
        self,
        model: LanguageModel,
        classifier: Union[Literal["rule", "model"], Classifier] = "rule",
        k: int = 4,
        max_steps: int = 8,
        pool: int = 15,
        max_tokens: int = 256,
        language: Language = "auto",
    ) -> None:
        for name, value in (("k", k), ("max_steps", max_steps), ("pool", pool), ("max_tokens", max_tokens)):
            check_positive(value, name, "AdaptiveRAG")
        check_language(language, "AdaptiveRAG")
        self.model = model
        self.classifier = classifier
        self.k = k
        self.max_steps = max_steps
        self.pool = pool
        self.max_tokens = max_tokens
        self.language = language
        self._classify = _classifier(classifier, model, language)
        self._direct = Direct(model, max_tokens, language)
        self._cited = Cited(model, k, max_tokens, language)
        self._ircot = IRCoT(model, k, max_steps, pool, max_tokens, language=language)

    async def run(
        self, question: str, retriever: Retriever, filter: Filter | None = None, sampling: SamplingRequest | None = None
    ) -> Answer:
        """The answer of the chosen strategy, as that gives it; the trace says which was chosen and why.

        Raises what the strategy raises, and `InputError` if the classifier gives another label than A, B or C.
        """
        question = check_question(question)
        label = await self._classify.aclassify(question)
        if label not in _LABELS:
            raise InputError(f"AdaptiveRAG: {type(self._classify).__name__} gave {label!r} for a question; allowed are 'A', 'B' and 'C'")
        note(f"complexity {label} by {type(self._classify).__name__}: {_STRATEGIES[label]}")
        count(**{f"complexity_{label}": 1})
        if label == "A":
            return await self._direct.run(question, sampling)
        return await (self._cited if label == "B" else self._ircot).run(question, retriever, filter, sampling)


def _classifier(choice: object, model: LanguageModel, language: Language) -> Classifier:
    if choice == "rule":
        return RuleClassifier()
    if choice == "model":
        return ModelClassifier(model, language)
    if isinstance(choice, Classifier) and not isinstance(choice, type):
        return choice
    raise InputError(f"AdaptiveRAG: classifier must be 'rule', 'model' or an object with a coroutine 'aclassify', not {choice!r}")


_SMALL_TALK = re.compile(
    r"(?:hi|hello|hey|thanks|thank you|bye|goodbye|good (?:morning|afternoon|evening)|how are you|who are you)(?: there)?"
    r"|你好吗?|您好|谢谢|再见|早上好|你是谁",
    re.IGNORECASE,
)
_ARITHMETIC = re.compile(
    r"(?:what is|what's|how much is|calculate|compute|计算)?[\d\s.,+*/×÷^()%=-]+(?:是多少|等于多少|等于几)?", re.IGNORECASE
)
_COMPARES = re.compile(r"\b(?:both|same|than|or|in common|compared?|difference)\b|相同|同一|共同|相比|比较|还是|都是|更", re.IGNORECASE)
_CLAUSE = re.compile(r"\b(?:who(?:se|m)?|what|when|where|which|that|how|why)\b", re.IGNORECASE)
_RELATION = re.compile(r"['’]s\b|\bof (?:the|an?)\b|\bof (?=[A-Z])|\bby (?:the|an?)\b")
_NAME = re.compile(r"(?<!\A)\b[A-Z][\w.'’-]*(?: (?:(?:of|the|and|de|in) )?[A-Z][\w.'’-]*)*|《[^》]{1,80}》|“[^”]{1,80}”")
_MOST_READ = 2_000
"""Characters of a question that the rule looks at."""


class RuleClassifier:
    """Complexity by the form of the question, in microseconds and without a model.

    C: it compares ("both", "same", "than", "or"; 相同, 还是, …), or has at least ``links`` links: clauses after the first (question words
    and "that"), relations ("'s", "of the", "by the", "of Name"), names after the first, and each 的 after the first. A: it is nothing but a
    greeting or a calculation, which no passage answers. B: all else, and most questions in other languages than English and Chinese.
    """

    def __init__(self, links: int = 2) -> None:
        check_positive(links, "links", "RuleClassifier")
        self.links = links

    async def aclassify(self, question: str) -> str:
        """A, B or C for ``question``; the trace says by which words."""
        text = question[:_MOST_READ].strip()
        bare = text.rstrip(" ?!.,？！。，")
        if _SMALL_TALK.fullmatch(bare) or (_ARITHMETIC.fullmatch(bare) and re.search(r"\d", bare)):
            note("rule: a greeting or a calculation, which no passage answers")
            return "A"
        compares = _COMPARES.search(text)
        if compares:
            note(f'rule: it compares ("{compares[0]}")')
            return "C"
        counts = [len(_CLAUSE.findall(text)) - 1, len(_RELATION.findall(text)), len(_NAME.findall(text)) - 1, text.count("的") - 1]
        found = sum(max(0, number) for number in counts)
        note(f"rule: {found} links between things, from {self.links} it is C")
        return "C" if found >= self.links else "B"


class ModelClassifier:
    """Complexity by the probabilities that ``model`` gives the labels A, B and C after a description and three examples.

    The paper trains a T5-large on which strategy answered rightly; this needs no training, only log-probabilities. One call of one token.
    """

    def __init__(self, model: LanguageModel, language: Language = "auto") -> None:
        check_language(language, "ModelClassifier")
        check_offers(model, "ModelClassifier", "logprobs", "to compare the labels A, B and C")
        self.model = model
        self.language = language

    async def aclassify(self, question: str) -> str:
        """The most probable label; B, the middle one, if none is among the model's 20 most likely tokens."""
        language = prompt_language(self.language, question)
        prompt = [
            Message("system", render("adaptive_rag/system", language)),
            Message("user", render("adaptive_rag/question", language, question=as_data(question))),
        ]
        ids = [(await self.model.aencode(label))[0] for label in _LABELS] if "token_ids" in self.model.capabilities else []
        generation = await self.model.agenerate(prompt, Sampling(max_tokens=1, logprobs=20, logprob_ids=tuple(ids)))
        weights = dict.fromkeys(_LABELS, 0.0)
        for token in generation.tokens[:1]:
            for _, text, logprob in token.top:
                if text.strip() in weights:
                    weights[text.strip()] += math.exp(logprob)
        total = sum(weights.values())
        if total == 0:
            note("model: none of the labels A, B and C is among its 20 most likely tokens; taken for B")
            return "B"
        note("model: " + ", ".join(f"{label} {weight / total:.3f}" for label, weight in weights.items()))
        return max(weights, key=lambda label: weights[label])
