"""A corpus survives `kill -9` at any moment, and a stopped run resumes to the same answers."""

from __future__ import annotations

import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
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


def phase_of(marker: Path) -> int:
    return int(marker.read_text()) if marker.exists() else 0


def aim_at(kind: int, child: BaseProcess, marker: Path) -> None:
    """Wait until the child is in a phase of this kind: 0 builds, 1 updates, 2 deletes, 3 compacts."""
    end = time.monotonic() + 60
    while phase_of(marker) % 4 != kind or not marker.with_suffix("").joinpath("corpus.sqlite3").exists():
        assert child.is_alive(), "the child stopped by itself"
        assert time.monotonic() < end, f"no phase of kind {kind} in a minute"
        time.sleep(0.0005)


@pytest.mark.timeout(300)
def test_thirty_kills_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    marker = path.with_suffix(".phase")
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([scenario.__name__])
    moments = random.Random(7)
    before: scenario.State = {}
    reached, met, halfway, kills = 0, set(), 0, 0
    while kills < KILLS or not {0, 1, 2} <= met:
        assert kills < 3 * KILLS, f"{kills} kills met phases {met} only"
        child = processes.Process(target=scenario.live, args=(path,))
        child.start()
        aim_at(kills % 4, child, marker)
        time.sleep(0.3 * moments.random() ** 3)  # mostly soon: deleting takes milliseconds on a fast machine
        assert child.is_alive(), "the child stopped by itself"
        child.kill()
        child.join()
        kills += 1
        phase = phase_of(marker)
        while reached < phase:
            before = scenario.states(reached, before)[-1]
            reached += 1
        if not Corpus.exists(path):  # killed while it was being created
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
    assert halfway >= 5, f"only {halfway} kills left a phase half done"
    resumed, whole = scenario.open_or_create(path), scenario.open_or_create(tmp_path / "whole")
    for phase in range(reached, last + 1):
        scenario.run_phase(resumed, phase)
    for phase in range(last + 1):
        scenario.run_phase(whole, phase)
    resumed.verify()
    assert scenario.state_of(resumed) == scenario.state_of(whole)
    assert answers(resumed) == answers(whole)
