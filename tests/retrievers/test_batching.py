"""A method is written for one question; many of them in flight reach encoder and indices as a few batches."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from rag import BM25, Corpus, Dense, Fuse, Pipeline
from tests.retrievers.stubs import HashEncoder, LineChunker, documents


class Counting(HashEncoder):
    """Remembers how many queries each call encoded."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def encode(self, texts: list[str], kind: Literal["query", "passage"] = "passage") -> np.ndarray:
        if kind == "query":
            self.calls.append(len(texts))
        return super().encode(texts, kind)


def test_sixty_four_questions_in_flight_are_a_few_calls_and_answer_as_alone(tmp_path: Path) -> None:
    encoder = Counting()
    corpus = Corpus.create(tmp_path / "shelf", encoder=encoder, chunker=LineChunker())
    corpus.add(documents(30))
    sparse, dense = BM25(corpus, k=5), Dense(corpus, k=5)
    searched: list[int] = []
    work = sparse._batcher.work
    sparse._batcher.work = lambda queries: searched.append(len(queries)) or work(queries)  # type: ignore[func-returns-value]
    pipe = Pipeline().add("sparse", sparse).add("dense", dense).add("fuse", Fuse(k=3))
    pipe.connect("sparse", "fuse").connect("dense", "fuse")
    questions = [f"w{i} w{i + 1}" for i in range(64)]
    together = [run.value for run in pipe.map(questions, in_flight=64)]
    assert sum(encoder.calls) == sum(searched) == 64
    assert len(encoder.calls) <= 16
    assert len(searched) <= 16
    assert together == [pipe.run(question) for question in questions]
