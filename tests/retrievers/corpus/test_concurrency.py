"""Readers see whole commits, whatever a writer does meanwhile."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable

import pytest

from rag.core.types import Hit
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from retrievers.dense import Dense
from tests.retrievers.stubs import HashEncoder, LineChunker, documents

ROUNDS = 6


def check(hits: list[Hit]) -> None:
    versions = defaultdict(list)
    for hit in hits:
        versions[hit.passage.document].append(hit.passage.text.rsplit(" v", 1)[1])
    for document, found in versions.items():
        assert len(found) == 3, f"{document}: {len(found)} of 3 passages"
        assert len(set(found)) == 1, f"{document} was found in versions {set(found)}"


@pytest.mark.parametrize("shared", [True, False], ids=["one-object", "two-objects"])
@pytest.mark.parametrize("kind", [BM25, Dense])
def test_a_reader_sees_whole_documents_while_a_writer_commits(corpus: Corpus, kind: Callable[..., BM25 | Dense], shared: bool) -> None:
    corpus.add(documents(20))
    reader = kind(corpus if shared else Corpus.open(corpus.folder, encoder=HashEncoder(), chunker=LineChunker()))
    stop, failures, searches = threading.Event(), [], [0]

    def search() -> None:
        try:
            while not stop.is_set() or searches[0] < 20:
                check(reader.search("title", k=1000))
                searches[0] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in range(1, ROUNDS):
        corpus.add(documents(20, version), batch_passages=9)
        corpus.delete([f"doc{i:04d}" for i in range(version)])
        corpus.compact()
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert searches[0] >= 20
    hits = reader.search("title", k=1000)
    assert {hit.passage.document for hit in hits} == {record.id for record in corpus.documents()}
    assert len(hits) == 3 * (20 - ROUNDS + 1)


def test_a_search_sees_the_commit_before_it(corpus: Corpus) -> None:
    other = Corpus.open(corpus.folder, encoder=HashEncoder(), chunker=LineChunker())
    lexical, dense = BM25(corpus, k=1000), Dense(corpus, k=1000)
    for n in range(1, 5):
        other.add(documents(n))
        assert len(lexical.search("title")) == len(dense.search("title")) == 3 * n
    other.delete(["doc0002"])
    assert len(lexical.search("title")) == len(dense.search("title")) == 9


def test_a_reader_that_opened_before_a_compaction_goes_on(corpus: Corpus) -> None:
    corpus.add(documents(10), batch_passages=6)
    late = Corpus.open(corpus.folder, encoder=HashEncoder(), chunker=LineChunker())
    corpus.compact()  # the files that `late` has not read yet are gone
    assert len(BM25(late).search("title", k=100)) == 30
    assert len(Dense(late).search("title", k=100)) == 30
