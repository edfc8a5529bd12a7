"""The methods that `benchmarks.generators` compares, each as the pipeline a user would build: the same model, corpus and prompt budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rag import (
    BM25,
    CRAG,
    AdaptiveRAG,
    Cited,
    Corpus,
    Dense,
    Direct,
    FinalAnswer,
    Flare,
    FlareInstruct,
    HyDE,
    IRCoT,
    IterRetGen,
    SelfAsk,
    SelfRAG,
)
from rag.core.pipeline import Pipeline
from rag.core.protocols import LanguageModel

Build = Callable[[LanguageModel, Corpus, int], Pipeline]
"""The pipeline over a model and a corpus, with so many passages of one retrieval."""

MAX_TOKENS = 48
"""Tokens of an answer: short ones are asked for, and two cores have to write them."""
STEPS = 4
"""Turns of the methods that go on until they are done."""
JUDGED = (-0.35, -0.6)
"""CRAG's thresholds. Those of the paper are for its trained evaluator; the embedded model's judgements lie between about -.3 and -.6."""


def over_bm25(answer: Any, corpus: Corpus, k: int) -> Pipeline:
    """``answer`` with BM25 as its retriever."""
    return Pipeline().add("search", BM25(corpus, k=k)).add("answer", answer).connect("search", "answer.retriever")


def thinking(answer: Any, corpus: Corpus, k: int) -> Pipeline:
    """The same, and what follows "the answer is" as the result: the method writes its reasoning too."""
    return over_bm25(answer, corpus, k).add("final", FinalAnswer()).connect("answer", "final")


def direct(model: LanguageModel, corpus: Corpus, k: int) -> Pipeline:
    """The model alone."""
    return Pipeline().add("answer", Direct(model, MAX_TOKENS))


def hyde(model: LanguageModel, corpus: Corpus, k: int) -> Pipeline:
    """Dense search by hypothetical documents, and `Cited`."""
    search = HyDE(model, corpus, n=2, k=k, max_tokens=MAX_TOKENS)
    return Pipeline().add("search", search).add("answer", Cited(model, k, MAX_TOKENS)).connect("search", "answer.retriever")


METHODS: Mapping[str, Build] = {
    "direct": direct,
    "cited": lambda model, corpus, k: over_bm25(Cited(model, k, MAX_TOKENS), corpus, k),
    "flare": lambda model, corpus, k: thinking(Flare(model, k, 2 * MAX_TOKENS, task="reasoning"), corpus, k),
    "flare_instruct": lambda model, corpus, k: thinking(FlareInstruct(model, k, 2 * MAX_TOKENS, task="reasoning"), corpus, k),
    "self_rag": lambda model, corpus, k: over_bm25(SelfRAG(model, k, MAX_TOKENS), corpus, k),
    "ircot": lambda model, corpus, k: over_bm25(IRCoT(model, k, STEPS, max_tokens=MAX_TOKENS, step_tokens=MAX_TOKENS), corpus, k),
    "iter_retgen": lambda model, corpus, k: over_bm25(IterRetGen(model, k, max_tokens=MAX_TOKENS), corpus, k),
    "self_ask": lambda model, corpus, k: over_bm25(SelfAsk(model, k, STEPS), corpus, k),
    "hyde": hyde,
    "crag": lambda model, corpus, k: over_bm25(CRAG(model, k, *JUDGED, max_tokens=MAX_TOKENS), corpus, k),
    "adaptive": lambda model, corpus, k: over_bm25(AdaptiveRAG(model, "rule", k, STEPS, max_tokens=MAX_TOKENS), corpus, k),
}


def in_steps(search: Any, model: LanguageModel) -> Pipeline:
    """IRCoT over ``search``, five passages a step: the first ten are those of the question and those of the first thought."""
    answer = IRCoT(model, 5, STEPS, max_tokens=MAX_TOKENS, step_tokens=MAX_TOKENS)
    return Pipeline().add("search", search).add("answer", answer).connect("search", "answer.retriever")


EVIDENCE: Mapping[str, tuple[Build, Build]] = {
    "bm25": (
        lambda model, corpus, k: Pipeline().add("search", BM25(corpus, k=k)),
        lambda model, corpus, k: in_steps(BM25(corpus, k=k), model),
    ),
    "dense": (
        lambda model, corpus, k: Pipeline().add("search", Dense(corpus, k=k)),
        lambda model, corpus, k: in_steps(Dense(corpus, k=k), model),
    ),
}
"""By retriever: ten passages for the question at once, and ten in steps."""
