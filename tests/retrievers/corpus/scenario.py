"""A long life of a corpus in phases: documents are built, changed, deleted, compacted. Each phase can be run again after a crash."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from retrievers.corpus import Corpus
from tests.retrievers.stubs import HashEncoder, LineChunker, document

DOCUMENTS = 40
State = dict[str, int]
"""Document id -> version of its text."""


def open_or_create(path: Path) -> Corpus:
    if Corpus.exists(path):
        return Corpus.open(path, encoder=HashEncoder(), chunker=LineChunker())
    return Corpus.create(path, encoder=HashEncoder(), chunker=LineChunker())


def changes(phase: int) -> list[tuple[str, int | None]]:
    """What a phase does, in order: (document id, its new version or None for gone)."""
    ids = [f"doc{i:04d}" for i in range(DOCUMENTS)]
    match phase % 4:
        case 0:
            return [(id, phase) for id in ids]
        case 1:
            return [(id, phase) for id in ids[::2]]
        case 2:
            return [(id, None) for id in ids[::3]]
        case _:
            return []


def run_phase(corpus: Corpus, phase: int) -> None:
    todo = changes(phase)
    kept = [document(int(id[3:]), version) for id, version in todo if version is not None]
    if kept:
        corpus.add(kept, batch_passages=12)
    gone = [id for id, version in todo if version is None]
    for start in range(0, len(gone), 3):
        corpus.delete(gone[start : start + 3])
    if not todo:
        corpus.compact()


def states(phase: int, before: State) -> list[State]:
    """Every state that a crash in ``phase`` may leave: the changes up to some document, in order."""
    state = dict(before)
    possible = [dict(state)]
    for id, version in changes(phase):
        if version is None:
            state.pop(id, None)
        else:
            state[id] = version
        possible.append(dict(state))
    return possible


def state_of(corpus: Corpus) -> State:
    """What is there, read from the passages; fails if a document is there in part or in two versions."""
    versions: dict[str, list[int]] = {}
    for passage in corpus.each_passage():
        versions.setdefault(passage.document, []).append(int(passage.text.rsplit(" v", 1)[1]))
    for id, found in versions.items():
        assert len(found) == 3, f"{id} has {len(found)} passages of 3"
        assert len(set(found)) == 1, f"{id} is there in versions {found}"
    return {id: found[0] for id, found in versions.items()}


def live(path: Path) -> None:
    """Run phase after phase for ever, noting each one that is done."""
    marker = path.with_suffix(".phase")
    first = int(marker.read_text()) if marker.exists() else 0
    corpus = open_or_create(path)
    for phase in count(first):
        run_phase(corpus, phase)
        temporary = marker.with_suffix(".tmp")
        temporary.write_text(str(phase + 1))
        temporary.replace(marker)
