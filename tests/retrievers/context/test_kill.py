"""A build survives `kill -9` at any moment, and goes on where it stopped."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

from retrievers.context.build import build
from retrievers.context.encoded import Encoded
from retrievers.context.manifest import MANIFEST
from retrievers.context.store import ContextStore
from tests.retrievers.context import fake
from tests.retrievers.context.fake import MODEL, FakeEncoder, contexts, halved, same

COUNT = 120


def work(path: Path, version: int) -> None:
    """A build that takes about half a second; in version 1 every other passage changed, so that segments are rewritten too."""
    build(path, wanted(version), FakeEncoder(), segment_bytes=4_000, batch=2, prune=True, progress=lambda *_: time.sleep(0.002))


def wanted(version: int) -> list[tuple[str, str]]:
    return contexts(COUNT, version)[::2] + contexts(COUNT)[1::2]


def test_kills_lose_nothing_but_the_open_segment(tmp_path: Path) -> None:
    path = tmp_path / "store"
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload([fake.__name__])
    moments, partial = random.Random(11), 0
    for round in range(10):
        version = round // 5
        before = ContextStore(path).hashes() if path.exists() and (path / MANIFEST).exists() else {}
        child = processes.Process(target=work, args=(path, version))
        child.start()
        end = time.monotonic() + 60
        while child.is_alive() and not (path / MANIFEST).exists() and time.monotonic() < end:
            time.sleep(0.002)
        time.sleep(0.15 * moments.random())
        child.kill()
        child.join()
        store = ContextStore(path, MODEL)
        assert store.verify() == []
        current = dict(wanted(version))
        found = store.get(list(current), list(current.values()))
        right = [id for one, (id, text) in zip(found, current.items(), strict=True) if isinstance(one, Encoded) and same(one, halved(text))]
        assert all(isinstance(one, Encoded) is (id in right) for one, id in zip(found, current, strict=True))
        assert before.keys() <= store.hashes().keys()  # what was committed stays, or is replaced
        partial += 0 < len(right) < COUNT and not store.info()["complete"]
    assert partial >= 3, "the kills came too late or too soon to leave a build half done"

    encoder = FakeEncoder()
    have = sum(isinstance(one, Encoded) for one in ContextStore(path).get(*zip(*wanted(1), strict=True)))
    build(path, wanted(1), encoder, segment_bytes=4_000, prune=True)
    assert len(set(encoder.seen)) <= COUNT - have + 8  # and the sample from which the size is estimated
    store = ContextStore(path, MODEL)
    assert (len(store), store.verify(), store.info()["complete"]) == (COUNT, [], True)
    for id, text in wanted(1):
        (one,) = store.get([id], [text])
        assert isinstance(one, Encoded)
        assert same(one, halved(text))
    assert sorted(folder.name for folder in (path / "segments").iterdir()) == sorted(store.state().segments)
