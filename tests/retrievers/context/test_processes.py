"""Eight processes read one store while a ninth writes."""

from __future__ import annotations

import multiprocessing
import os
import random
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from retrievers.context.build import build
from retrievers.context.encoded import Encoded
from retrievers.context.store import ContextStore
from tests.retrievers.context import fake
from tests.retrievers.context.fake import MODEL, FakeEncoder, built, contexts, halved, same

COUNT, READERS = 24, 8


def read(path: Path, seed: int, told: Connection) -> None:
    """Read until told to stop, passages of either version; tell how many were found and how many were wrong."""
    store, moments = ContextStore(path, MODEL, ram_bytes=6_000), random.Random(seed)
    hits = wrong = rounds = 0
    reasons: set[str] = set()
    while not told.poll() or rounds < 20:
        pairs = moments.sample(contexts(COUNT) + contexts(COUNT, version=1), 6)
        for one, (_, text) in zip(store.get(*zip(*pairs, strict=True)), pairs, strict=True):
            if isinstance(one, Encoded):
                hits += 1
                wrong += not same(one, halved(text))
            else:
                reasons.add(one.reason)
        if rounds == 0:
            told.send("reading")
        rounds += 1
    told.send((os.getpid(), hits, wrong, sorted(reasons)))


@pytest.mark.timeout(120)
def test_eight_processes_read_while_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "store"
    built(path, COUNT)
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([fake.__name__])
    pipes = [processes.Pipe() for _ in range(READERS)]
    readers = [processes.Process(target=read, args=(path, seed, theirs)) for seed, (_, theirs) in enumerate(pipes)]
    for reader in readers:
        reader.start()
    for ours, _ in pipes:
        assert ours.poll(60)
        assert ours.recv() == "reading"
    for version in (1, 0, 1):
        build(path, contexts(COUNT, version)[::2] + contexts(COUNT)[1::2], FakeEncoder(), segment_bytes=4_000, prune=True)
    found = []
    for ours, _ in pipes:
        ours.send("stop")
    for ours, _ in pipes:
        assert ours.poll(60)
        found.append(ours.recv())
    for reader in readers:
        reader.join()
    assert len({process for process, *_ in found}) == READERS
    assert all(hits > 20 and wrong == 0 for _, hits, wrong, _ in found)
    assert {reason for *_, reasons in found for reason in reasons} == {"changed"}  # a rewrite under a reader is no damage
