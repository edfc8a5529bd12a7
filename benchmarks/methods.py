"""The methods that `benchmarks.generators` compares, each as the pipeline a user would build: the same model, corpus and prompt budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rag import BM25, CRAG, AdaptiveRAG, Cited, Corpus, Direct, FinalAnswer, Flare, FlareInstruct, HyDE, IRCoT, IterRetGen, SelfAsk, SelfRAG
from rag.core.pipeline import Pipeline
from rag.core.protocols import LanguageModel

Build = Callable[[LanguageModel, Corpus], Pipeline]

K = 4
"""Passages of one retrieval."""
MAX_TOKENS = 48
"""Tokens of an answer: short ones are asked for, and two cores have to write them."""
STEPS = 4
"""Turns of the methods that go on until they are done."""
JUDGED = (-0.35, -0.6)
"""CRAG's thresholds. Those of the paper are for its trained evaluator; the embedded model's judgements lie between about -.3 and -.6."""


def over_bm25(answer: Any) -> Callable[[Corpus], Pipeline]:
    """``answer`` with BM25 as its retriever."""
    return lambda corpus: Pipeline().add("search", BM25(corpus, k=K)).add("answer", answer).connect("search", "answer.retriever")


def thinking(answer: Any) -> Callable[[Corpus], Pipeline]:
    """The same, and what follows "the answer is" as the result: the method writes its reasoning too."""
    return lambda corpus: over_bm25(answer)(corpus).add("final", FinalAnswer()).connect("answer", "final")


def direct(model: LanguageModel, corpus: Corpus) -> Pipeline:
    """The model alone."""
    return Pipeline().add("answer", Direct(model, MAX_TOKENS))


def hyde(model: LanguageModel, corpus: Corpus) -> Pipeline:
    """Dense search by hypothetical documents, and `Cited`."""
    search = HyDE(model, corpus, n=2, k=K, max_tokens=MAX_TOKENS)
    return Pipeline().add("search", search).add("answer", Cited(model, K, MAX_TOKENS)).connect("search", "answer.retriever")


METHODS: Mapping[str, Build] = {
    "direct": direct,
    "cited": lambda model, corpus: over_bm25(Cited(model, K, MAX_TOKENS))(corpus),
    "flare": lambda model, corpus: thinking(Flare(model, K, 2 * MAX_TOKENS, task="reasoning"))(corpus),
    "flare_instruct": lambda model, corpus: thinking(FlareInstruct(model, K, 2 * MAX_TOKENS, task="reasoning"))(corpus),
    "self_rag": lambda model, corpus: over_bm25(SelfRAG(model, K, MAX_TOKENS))(corpus),
    "ircot": lambda model, corpus: over_bm25(IRCoT(model, K, STEPS, max_tokens=MAX_TOKENS, step_tokens=MAX_TOKENS))(corpus),
    "iter_retgen": lambda model, corpus: over_bm25(IterRetGen(model, K, max_tokens=MAX_TOKENS))(corpus),
    "self_ask": lambda model, corpus: over_bm25(SelfAsk(model, K, STEPS))(corpus),
    "hyde": hyde,
    "crag": lambda model, corpus: over_bm25(CRAG(model, K, *JUDGED, max_tokens=MAX_TOKENS))(corpus),
    "adaptive": lambda model, corpus: over_bm25(AdaptiveRAG(model, "rule", K, STEPS, max_tokens=MAX_TOKENS))(corpus),
}
