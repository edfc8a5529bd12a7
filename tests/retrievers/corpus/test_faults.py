"""The process stops at each single step that touches the disk; what is found afterwards is always one committed state."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import CorpusNotFound
from retrievers.corpus import Corpus, durable
from tests.retrievers.corpus import scenario
from tests.retrievers.stubs import HashEncoder, LineChunker

STEPS = ("write", "flush", "rename", "remove", "commit", "write_array")


class Stopped(BaseException):
    """Stands for a crash: nothing after it reaches the disk."""


class Crash:
    """Lets the first ``allowed`` steps pass; then the process is dead. ``late``: the fatal step itself is still carried out."""

    def __init__(self, patch: pytest.MonkeyPatch, allowed: int, late: bool) -> None:
        self.allowed, self.late, self.taken = allowed, late, 0
        for name in STEPS:
            patch.setattr(durable, name, self._wrap(getattr(durable, name)))

    def _wrap(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any) -> Any:
            self.taken += 1
            if self.taken <= self.allowed:
                return step(*args)
            if self.taken == self.allowed + 1 and self.late:
                step(*args)
            raise Stopped

        return wrapped


def phases() -> range:
    return range(1, 4)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(scenario, "DOCUMENTS", 8)
    corpus = scenario.open_or_create(tmp_path / "base")
    scenario.run_phase(corpus, 0)
    corpus.close()
    return tmp_path / "base"


def live(path: Path) -> None:
    corpus = scenario.open_or_create(path)
    try:
        for phase in phases():
            scenario.run_phase(corpus, phase)
    finally:
        corpus.close()


def count_steps(base: Path, path: Path) -> int:
    shutil.copytree(base, path)
    with pytest.MonkeyPatch.context() as patch:
        crash = Crash(patch, 10**9, False)
        live(path)
    return crash.taken


def possible() -> list[scenario.State]:
    state = scenario.states(0, {})[-1]
    found = []
    for phase in phases():
        found += scenario.states(phase, state)
        state = found[-1]
    return found


@pytest.mark.parametrize("late", [False, True], ids=["before-the-step", "after-the-step"])
def test_a_crash_at_any_step_leaves_a_committed_state(base: Path, tmp_path: Path, late: bool) -> None:
    total = count_steps(base, tmp_path / "counted")
    assert total > 30
    ends = possible()
    for allowed in range(total):
        path = tmp_path / f"{allowed}"
        shutil.copytree(base, path)
        with pytest.MonkeyPatch.context() as patch:
            Crash(patch, allowed, late)
            with pytest.raises(Stopped):
                live(path)
        corpus = scenario.open_or_create(path)
        corpus.verify()
        assert scenario.state_of(corpus) in ends, f"after {allowed} steps"
        corpus.close()
        live(path)
        corpus = scenario.open_or_create(path)
        corpus.verify()
        assert scenario.state_of(corpus) == ends[-1]
        names = {segment.name for segment in corpus.manifest().segments}
        assert {folder.name for folder in (path / "segments").iterdir()} == names
        corpus.close()
        shutil.rmtree(path)


@pytest.mark.parametrize("late", [False, True], ids=["before-the-step", "after-the-step"])
def test_a_crash_while_creating_can_be_repeated(tmp_path: Path, late: bool) -> None:
    for allowed in range(2):
        path = tmp_path / str(allowed)
        with pytest.MonkeyPatch.context() as patch:
            Crash(patch, allowed, late)
            with pytest.raises(Stopped):
                Corpus.create(path, encoder=HashEncoder(), chunker=LineChunker())
        try:
            corpus = Corpus.open(path, encoder=HashEncoder(), chunker=LineChunker())
        except CorpusNotFound:
            corpus = Corpus.create(path, encoder=HashEncoder(), chunker=LineChunker())
        scenario.run_phase(corpus, 0)
        corpus.verify()
        corpus.close()


def test_a_creation_that_was_stopped_can_be_made_again(tmp_path: Path) -> None:
    """A kill between the first byte of the database and its commit leaves a file without tables."""
    path = tmp_path / "corpus"
    (path / "segments").mkdir(parents=True)
    sqlite3.connect(path / "corpus.sqlite3").execute("PRAGMA journal_mode = WAL").connection.close()
    assert not Corpus.exists(path)
    with pytest.raises(CorpusNotFound, match="never finished"):
        Corpus.open(path)
    corpus = Corpus.create(path, encoder=None)
    assert Corpus.exists(path)
    assert len(corpus) == 0
