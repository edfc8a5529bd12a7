"""A corpus survives `kill -9` at any moment, and a stopped run resumes to the same answers."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pytest

from rag.core.types import Hit
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus
from retrievers.dense import Dense
from tests.retrievers.corpus import scenario

KILLS = 30
QUERIES = ["w0 w1", "w5 w9 title", "w2", "w30 w7 w3", "title 4"]


def answers(corpus: Corpus) -> list[list[tuple[str, float]]]:
    def plain(hits: list[Hit]) -> list[tuple[str, float]]:
        return [(hit.passage.id, hit.score) for hit in hits]

    both = [BM25(corpus), Dense(corpus)]
    return [plain(hits) for retriever in both for hits in retriever.search_batch(QUERIES, k=15)]


def check_indices(corpus: Corpus) -> None:
    """Both kinds of index hold exactly the passages of the database."""
    everything = {passage.id for passage in corpus.each_passage()}
    assert len(corpus) == len(everything)
    if everything:
        assert {hit.passage.id for hit in BM25(corpus).search("title", k=1000)} == everything
        assert {hit.passage.id for hit in Dense(corpus).search("title", k=1000)} == everything


@pytest.mark.timeout(180)
def test_thirty_kills_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    marker = path.with_suffix(".phase")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([scenario.__name__])
    moments = random.Random(7)
    before: scenario.State = {}
    reached, met, halfway = 0, set(), 0
    for _ in range(KILLS):
        child = processes.Process(target=scenario.live, args=(path,))
        child.start()
        time.sleep(moments.uniform(0.05, 0.5))
        assert child.is_alive(), "the child stopped by itself"
        child.kill()
        child.join()
        phase = int(marker.read_text()) if marker.exists() else 0
        while reached < phase:
            before = scenario.states(reached, before)[-1]
            reached += 1
        if not (path / "corpus.sqlite3").exists():
            continue
        met.add(phase % 4)
        corpus = scenario.open_or_create(path)
        corpus.verify()
        state, allowed = scenario.state_of(corpus), scenario.states(reached, before)
        assert state in allowed
        halfway += state not in (allowed[0], allowed[-1])
        check_indices(corpus)
        corpus.close()

    last = reached + 1 if reached % 4 == 0 else (reached // 4 + 1) * 4 + 1
    assert last >= 4, "the kills came too fast to meet updates and deletions"
    assert {0, 1, 2} <= met, f"the kills met phases {met} only"
    assert halfway >= 5, f"only {halfway} kills left a phase half done"
    resumed, whole = scenario.open_or_create(path), scenario.open_or_create(tmp_path / "whole")
    for phase in range(reached, last + 1):
        scenario.run_phase(resumed, phase)
    for phase in range(last + 1):
        scenario.run_phase(whole, phase)
    resumed.verify()
    assert scenario.state_of(resumed) == scenario.state_of(whole)
    assert answers(resumed) == answers(whole)
