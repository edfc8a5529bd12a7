"""What `benchmarks.domain_gain` learns from and asks: questions of some articles, and of others that are held out.

A training prompt is the very prompt that `Cited` sends for the question, with its own paragraph alone or among what BM25 finds.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from generators.cited import cited_prompt
from generators.models.checks import messages_json
from rag.core.errors import InputError
from rag.core.registry import component
from rag.core.types import Filter, Hit, Passage
from rag.evaluate.types import DataSet, Question
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from retrievers.prompting import prompt_language

ARTICLE = "article"
"""The metadata of questions and passages that tells the article."""


@dataclass(frozen=True, slots=True)
class Split:
    """``learnt`` are the questions of some articles; ``asked`` those of the others, with all passages of both to search."""

    learnt: tuple[Question, ...]
    asked: DataSet
    articles: tuple[str, ...]
    """The articles that are learnt from."""


def split(data: DataSet, held_out: int, questions: int, seed: int) -> Split:
    """Hold ``held_out`` articles out, drawn with ``seed``, and ask ``questions`` of theirs (all of them if there are fewer).

    All paragraphs of an article are on one side. A text that is asked of two passages is not asked here: which one is meant cannot be told.
    Raises `InputError` if either side would be left without an article.
    """
    articles = sorted({_article(question) for question in data.questions})
    if not 1 <= held_out < len(articles):
        raise InputError(f"{data.name} has {len(articles)} articles: hold 1 to {len(articles) - 1} of them out, not {held_out}")
    if questions < 1:
        raise InputError(f"one question or more must be asked, not {questions}")
    draw = random.Random(seed)
    kept_back = set(draw.sample(articles, held_out))
    there = _told_apart([question for question in data.questions if _article(question) in kept_back])
    drawn = {question.id for question in draw.sample(there, min(questions, len(there)))}
    return Split(
        tuple(question for question in data.questions if _article(question) not in kept_back),
        replace(data, questions=tuple(question for question in there if question.id in drawn)),
        tuple(article for article in articles if article not in kept_back),
    )


class Lessons:
    """Writes training prompts over the passages of ``corpus``: of each question its own paragraph, and for a ``share`` of them, drawn with
    ``seed``, the ``shown`` best passages that BM25 finds, so that the reader learns to pass over the others.

    Passages of articles that are held out are never shown. A paragraph that is not found stands in the place of the last that is.
    """

    def __init__(self, corpus: Corpus, shown: int, share: float, seed: int) -> None:
        if not 0 <= share <= 1:
            raise InputError(f"the share of prompts with other passages in them lies between 0 and 1, not {share}")
        self._corpus = corpus
        self._shown = shown
        self._share = share
        self._seed = seed

    def lines(self, given: Split) -> Iterator[str]:
        """JSON Lines as `rag train` takes them, in the order of the questions."""
        passages = {passage.id: passage for passage in self._corpus.each_passage()}
        texts = [question.question for question in given.learnt]
        rankings = BM25(self._corpus).search_batch(texts, self._shown, {ARTICLE: list(given.articles)})
        draw = random.Random(self._seed)
        for question, found in zip(given.learnt, rankings, strict=True):
            gold = Hit(passages[question.gold[0]], 0.0, 1)
            hits = _with(gold, found, self._shown) if draw.random() < self._share else [gold]
            prompt = cited_prompt(question.question, hits, prompt_language("auto", question.question))
            yield json.dumps({"prompt": messages_json(prompt), "answer": question.answers[0]}, ensure_ascii=False)


def _with(gold: Hit, found: Sequence[Hit], shown: int) -> list[Hit]:
    if any(hit.passage.id == gold.passage.id for hit in found):
        return list(found)
    return [*found[: shown - 1], gold]


@component
class GoldPassage:
    """A retriever that finds for each question the passage named in ``gold``, by the question's text: what no search can surpass."""

    def __init__(self, corpus: Corpus, gold: Mapping[str, str]) -> None:
        self.corpus = corpus
        self.gold = gold
        self._passages: dict[str, Passage] = {}

    async def asearch(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """One hit. Raises `InputError` for a question that ``gold`` does not name."""
        if query not in self.gold:
            raise InputError(f"GoldPassage: no passage is known for the question '{query[:80]}'")
        if not self._passages:
            self._passages = {passage.id: passage for passage in self.corpus.each_passage()}
        return [Hit(self._passages[self.gold[query]], 1.0, 1, "gold")]

    async def run(self, query: str, k: int | None = None, filter: Filter | None = None) -> list[Hit]:
        """As a node of a pipeline."""
        return await self.asearch(query, k, filter)


def _told_apart(questions: Sequence[Question]) -> list[Question]:
    times = Counter(question.question for question in questions)
    return [question for question in questions if times[question.question] == 1]


def _article(question: Question) -> Any:
    return question.metadata[ARTICLE]
