"""One writer: order, cancelling between commits, other processes, and a disk that is full."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rag.serve.documents.lines import Line, Parsed, write_lines
from rag.serve.documents.shelf import Account, Shelf
from rag.serve.documents.spool import Spool
from rag.serve.errors import RequestError
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus, durable


@pytest.fixture
def corpus(tmp_path: Path) -> Iterator[Corpus]:
    corpus = Corpus.create(tmp_path / "corpus", encoder=None)
    yield corpus
    corpus.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool")
    yield spool
    spool.close()


def lines(spool: Spool, *documents: tuple[str, str], root: str = "") -> Parsed:
    written = write_lines((Line(id=id, text=text) for id, text in documents), spool.create())
    return Parsed("", root, written.file, written.documents)


def ids(corpus: Corpus) -> list[str]:
    return [record.id for record in corpus.documents()]


def add(shelf: Shelf, *files: Parsed) -> dict[str, Any]:
    account = Account()
    asyncio.run(shelf.add(files, account))
    return account.describe()


def test_documents_are_added_replaced_left_alone_and_deleted(corpus: Corpus, spool: Spool) -> None:
    shelf = Shelf(corpus)
    assert add(shelf, lines(spool, ("a", "one"), ("b", "two"))) == {
        "added": 2,
        "updated": 0,
        "unchanged": 0,
        "deleted": 0,
        "passages": 2,
        "skipped": [],
        "notes": [],
    }
    account = add(shelf, lines(spool, ("a", "one"), ("b", "three"), ("c", " \n")))
    assert (account["added"], account["updated"], account["unchanged"]) == (0, 1, 1)
    assert account["skipped"] == [{"name": "c", "reason": "has no text"}]
    assert [hit.passage.document for hit in BM25(corpus).search("three")] == ["b"]
    assert asyncio.run(shelf.delete("a")) == 1
    assert asyncio.run(shelf.delete("a")) == 0
    assert ids(corpus) == ["b"]
    shelf.close()


def test_rows_that_a_newer_table_lacks_are_deleted_and_other_tables_are_not_touched(corpus: Corpus, spool: Spool) -> None:
    shelf = Shelf(corpus)
    old = lines(spool, ("t.csv#1", "one"), ("t.csv#2", "two"), root="upload:t.csv")
    other = lines(spool, ("u.csv#1", "one"), root="upload:u.csv")
    add(shelf, old, other, lines(spool, ("a", "one")))
    account = add(shelf, lines(spool, ("t.csv#2", "two"), root="upload:t.csv"))
    assert (account["deleted"], account["unchanged"]) == (1, 1)
    assert ids(corpus) == ["a", "t.csv#2", "u.csv#1"]
    assert asyncio.run(shelf.delete("t.csv")) == 1
    assert ids(corpus) == ["a", "u.csv#1"]
    shelf.close()


def test_pages_and_single_documents(corpus: Corpus, spool: Spool) -> None:
    shelf = Shelf(corpus)
    add(shelf, lines(spool, *((f"d{number}", f"text {number}") for number in range(5))))
    assert [record.id for record in asyncio.run(shelf.page("", 2))] == ["d0", "d1"]
    assert [record.id for record in asyncio.run(shelf.page("d1", 2))] == ["d2", "d3"]
    assert asyncio.run(shelf.page("d4", 2)) == []
    record, passages = asyncio.run(shelf.document("d3", 10)) or pytest.fail("it is there")
    assert (record.id, [passage.text for passage in passages]) == ("d3", ["text 3"])
    assert asyncio.run(shelf.document("d", 10)) is None
    shelf.close()


def test_cancelling_ends_between_two_commits(corpus: Corpus, spool: Spool) -> None:
    shelf = Shelf(corpus, batch_passages=10)
    many = lines(spool, *((f"d{number:05d}", f"text {number}") for number in range(20_000)))
    account = Account()

    async def scenario() -> None:
        first = asyncio.Event()
        task = asyncio.create_task(shelf.add([many], account, first.set))
        await first.wait()
        task.cancel()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        held = len(ids(corpus))
        assert held == account.added
        assert 0 < held < 20_000
        assert held % 10 == 0
        await asyncio.sleep(0.1)
        assert len(ids(corpus)) == held

    asyncio.run(scenario())
    corpus.verify()
    shelf.close()


def test_one_who_waits_for_the_writer_can_leave(corpus: Corpus, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf, go = Shelf(corpus), threading.Event()
    write = durable.publish
    monkeypatch.setattr(durable, "publish", lambda *names: (go.wait(20), write(*names)))

    async def scenario() -> None:
        first = asyncio.create_task(shelf.add([lines(spool, ("a", "one"))], Account()))
        second = asyncio.create_task(shelf.delete("a"))
        await asyncio.sleep(0.05)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go.set()
        await first

    asyncio.run(scenario())
    assert ids(corpus) == ["a"]
    shelf.close()


def test_searches_go_on_while_it_writes(corpus: Corpus, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(corpus)
    add(shelf, lines(spool, ("a", "suits last")))
    go, retriever = threading.Event(), BM25(corpus)
    write = durable.publish
    monkeypatch.setattr(durable, "publish", lambda *names: (go.wait(20), write(*names)))

    async def scenario() -> None:
        adding = asyncio.create_task(shelf.add([lines(spool, ("b", "suits tear"))], Account()))
        await asyncio.sleep(0.05)
        assert [hit.passage.document for hit in await retriever.asearch("suits")] == ["a"]
        assert [record.id for record in await shelf.page("", 5)] == ["a"]
        go.set()
        await adding
        assert {hit.passage.document for hit in await retriever.asearch("suits")} == {"a", "b"}

    asyncio.run(scenario())
    shelf.close()


def test_another_process_that_writes_is_waited_for_but_not_for_ever(corpus: Corpus, spool: Spool) -> None:
    other = Corpus.open(corpus.folder)
    with other.writer():
        shelf = Shelf(corpus, lock_seconds=0.2)
        with pytest.raises(RequestError) as refused:
            add(shelf, lines(spool, ("a", "one")))
        assert (refused.value.status, refused.value.code, refused.value.retry_after) == (503, "corpus_busy", 30)
        assert str(corpus.folder) not in refused.value.message
    shelf.close()
    patient = Shelf(corpus, lock_seconds=20)
    writer = other.writer()
    writer.__enter__()
    threading.Timer(0.3, writer.__exit__).start()
    assert add(patient, lines(spool, ("a", "one")))["added"] == 1
    patient.close()
    other.close()


@pytest.mark.parametrize("step", ["write_array", "publish", "commit"])
def test_a_full_disk_leaves_nothing_half_written_and_later_uploads_work(
    corpus: Corpus, spool: Spool, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shelf = Shelf(corpus)
    add(shelf, lines(spool, ("a", "one")))
    with monkeypatch.context() as patch:
        patch.setattr(durable, step, full)
        with pytest.raises(RequestError) as refused:
            add(shelf, lines(spool, ("a", "two"), ("b", "two")))
        assert (refused.value.status, refused.value.code) == (507, "disk_full")
        assert str(corpus.folder) not in refused.value.message
    assert ids(corpus) == ["a"]
    corpus.verify()
    assert add(shelf, lines(spool, ("a", "two"), ("b", "two")))["updated"] == 1
    corpus.verify()
    shelf.close()


def test_closing_finishes_the_commit_and_writes_no_other(corpus: Corpus, spool: Spool) -> None:
    shelf = Shelf(corpus, batch_passages=10)
    many = lines(spool, *((f"d{number:05d}", f"text {number}") for number in range(20_000)))

    async def scenario() -> None:
        account, first = Account(), asyncio.Event()
        task = asyncio.create_task(shelf.add([many], account, first.set))
        await first.wait()
        started = time.monotonic()
        await asyncio.to_thread(shelf.close)
        assert time.monotonic() - started < 5
        with pytest.raises(RequestError, match="shutting down"):
            await task
        assert len(ids(corpus)) == account.added < 20_000
        with pytest.raises(RequestError, match="shutting down"):
            await shelf.delete("d00000")

    asyncio.run(scenario())
    corpus.verify()
