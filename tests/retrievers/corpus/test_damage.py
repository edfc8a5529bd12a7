"""Damage, other versions and full disks are named, never answered from."""

from __future__ import annotations

import errno
import json
import resource
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rag.core.errors import CorpusDamaged, CorpusError, CorpusMismatch, CorpusNotFound
from rag.core.types import Document
from retrievers.analyzers import Analyzer
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus, ann, durable
from retrievers.dense import Dense
from tests.retrievers.stubs import HashEncoder, LineChunker, document, documents

FILES = [
    "passages.npy",
    "vectors.npy",
    "index.faiss",
    "terms.txt",
    "terms.indptr.npy",
    "terms.docs.npy",
    "terms.counts.npy",
    "terms.lengths.npy",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of one compacted segment with all kinds of files."""
    path = tmp_path_factory.mktemp("whole") / "corpus"
    corpus = Corpus.create(path, encoder=HashEncoder(), chunker=LineChunker(), index="hnsw")
    corpus.add(documents(30))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann, "SMALLEST", 10)
        corpus.compact()
    corpus.close()
    assert corpus.manifest().segments[0].kind == "hnsw"
    corpus.close()
    return path


@pytest.fixture
def path(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "corpus"))


def opened(path: Path) -> Corpus:
    return Corpus.open(path, encoder=HashEncoder(), chunker=LineChunker())


def use(path: Path) -> None:
    corpus = opened(path)
    BM25(corpus).search("title")
    Dense(corpus).search("title")


def segment_file(path: Path, name: str) -> Path:
    (file,) = (path / "segments").glob(f"*/{name}")
    return file


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(data)


def test_the_undamaged_corpus_passes(path: Path) -> None:
    use(path)
    opened(path).verify()
    assert sorted(file.name for file in (path / "segments").glob("*/*")) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.01, 0.5, 1.0], ids=["first", "middle", "last"])
def test_a_flipped_bit_is_found_when_the_file_is_used(path: Path, name: str, where: float) -> None:
    file = segment_file(path, name)
    flip(file, min(int(file.stat().st_size * where), file.stat().st_size - 1))
    with pytest.raises(CorpusDamaged, match=rf"{name}: its SHA-256 is .* where the manifest says"):
        opened(path).verify()
    if name == "vectors.npy":  # an exact search reads it, the other files are read by `use`
        with pytest.raises(CorpusDamaged, match=name):
            Dense(opened(path), index="flat").search("title")
    else:
        with pytest.raises(CorpusDamaged, match=name):
            use(path)


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_file_is_found_on_open(path: Path, name: str) -> None:
    file = segment_file(path, name)
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorpusDamaged, match=rf"{name}: it has \d+ bytes where the manifest says \d+.*index again"):
        opened(path)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found_on_open(path: Path, name: str) -> None:
    segment_file(path, name).unlink()
    with pytest.raises(CorpusDamaged, match=rf"{name}: the file is missing"):
        opened(path)


def test_a_missing_file_is_found_when_writing(path: Path) -> None:
    corpus = opened(path)
    corpus.add([document(50)])
    segment_file(path, "index.faiss").parent.joinpath("terms.docs.npy").unlink()
    with pytest.raises(CorpusDamaged, match=r"terms\.docs\.npy: the file is missing"):
        corpus.compact("flat")


def test_a_flipped_bit_in_a_text_is_found(path: Path) -> None:
    database = path / "corpus.sqlite3"
    text = next(opened(path).each_passage("doc0007")).text
    opened(path).close()
    place = database.read_bytes().index(text.encode())
    flip(database, place + 1)
    with pytest.raises(CorpusDamaged, match="checksum of passage 'doc0007#0'"):
        opened(path).verify()
    with pytest.raises(CorpusDamaged, match="checksum of passage 'doc0007#0'"):
        BM25(opened(path)).search("title", k=200)


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM passages WHERE rowid = 5",
        "INSERT INTO tombstones VALUES (5)",
        "UPDATE documents SET passages = 4 WHERE id = 'doc0003'",
        "DELETE FROM documents WHERE id = 'doc0003'",
        "UPDATE passages SET text = 'forged' WHERE rowid = 5",
    ],
)
def test_a_database_that_disagrees_with_itself_is_found(path: Path, statement: str) -> None:
    with sqlite3.connect(path / "corpus.sqlite3") as connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(CorpusDamaged):
        opened(path).verify()


def test_a_passage_missing_from_the_database_is_not_skipped_in_a_search(path: Path) -> None:
    with sqlite3.connect(path / "corpus.sqlite3") as connection:
        connection.execute("DELETE FROM passages WHERE rowid = 5")
    connection.close()
    with pytest.raises(CorpusDamaged, match="in a segment and not in the database"):
        BM25(opened(path)).search("title", k=200)


@pytest.mark.parametrize(
    "spoil", [lambda f: f.write_bytes(b"not a database, not at all" * 50), lambda f: flip(f, 3)], ids=["other", "magic"]
)
def test_a_database_that_sqlite_cannot_read(path: Path, spoil: Callable[[Path], object]) -> None:
    spoil(path / "corpus.sqlite3")
    with pytest.raises(CorpusDamaged, match=r"corpus\.sqlite3: SQLite cannot read it"):
        opened(path)


def test_a_truncated_database(path: Path) -> None:
    database = path / "corpus.sqlite3"
    database.write_bytes(database.read_bytes()[:20_000])
    with pytest.raises(CorpusDamaged, match=r"corpus\.sqlite3"):
        opened(path).verify()
    database.write_bytes(b"")
    with pytest.raises(CorpusNotFound, match="never finished"):
        opened(path)


def test_another_format_version_is_refused(path: Path) -> None:
    with sqlite3.connect(path / "corpus.sqlite3") as connection:
        connection.execute("UPDATE meta SET value = '2' WHERE key = 'format'")
    connection.close()
    with pytest.raises(CorpusMismatch, match=r"format version 2, but this release of graft reads 1"):
        opened(path)
    with pytest.raises(CorpusMismatch, match="format version 2"):
        Corpus(path).add(documents(1))


def test_another_encoder_or_analyzer_is_refused(path: Path) -> None:
    other = HashEncoder(salt="other")
    names = rf"{HashEncoder().identity}'.*'{other.identity}"
    with pytest.raises(CorpusMismatch, match=names):
        Corpus.open(path, encoder=other)
    with pytest.raises(CorpusMismatch, match=names):
        Dense(Corpus(path, encoder=other)).search("title")
    with pytest.raises(CorpusMismatch, match=names):
        Dense(opened(path), encoder=other).search("title")
    with pytest.raises(CorpusMismatch, match=names):
        Corpus(path, encoder=other, chunker=LineChunker()).add([document(99)])
    with pytest.raises(CorpusMismatch, match="analyzer"):
        Corpus.open(path, analyzer=Analyzer("none"))
    with pytest.raises(CorpusMismatch, match="analyzer"):
        BM25(opened(path), analyzer=Analyzer("none")).search("title")
    opened(path).verify()


def test_a_full_disk_says_so_and_keeps_the_last_commit(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = opened(path)
    before = [p.id for p in corpus.each_passage()]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("write", "flush", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(durable, step, full)
            with pytest.raises(CorpusError, match=r"disk is full.*last committed state is intact"):
                corpus.add(documents(5, version=9))
        corpus.verify()
        assert [p.id for p in corpus.each_passage()] == before
    with monkeypatch.context() as patch:
        patch.setattr(durable, "commit", lambda *_: (_ for _ in ()).throw(sqlite3.OperationalError("database or disk is full")))
        with pytest.raises(CorpusError, match="disk is full"):
            corpus.add(documents(5, version=9))
    assert opened(path).add(documents(5, version=9)).updated == 5
    opened(path).verify()


def test_a_real_limit_on_file_sizes(path: Path) -> None:
    corpus = opened(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    big = [Document(f"big{i}", "\n".join(f"line {n} of {i}" + " word" * 200 for n in range(400))) for i in range(4)]
    for limit in (20_000, 100_000, 400_000):  # met by the arrays, by the arrays, and by SQLite
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(CorpusError, match="disk is full or a size limit"):
                corpus.add(big, batch_passages=5000)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        corpus.verify()
        assert len(corpus) == 90
    assert corpus.add(big).added == 4
    corpus.verify()


def test_arrays_with_objects_are_never_unpickled(path: Path) -> None:
    file = segment_file(path, "terms.counts.npy")
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    record = sqlite3.connect(path / "corpus.sqlite3")
    files = record.execute("SELECT files FROM segments").fetchone()[0]
    table = json.loads(files)
    table[file.name] = {"bytes": file.stat().st_size, "sha256": durable.sha256(file)}
    with record:
        record.execute("UPDATE segments SET files = ?", (json.dumps(table),))
    record.close()
    with pytest.raises(CorpusDamaged, match=r"terms\.counts\.npy"):
        BM25(opened(path)).search("title")


def test_a_segment_name_never_leads_out_of_the_corpus(path: Path) -> None:
    with sqlite3.connect(path / "corpus.sqlite3") as connection:
        connection.execute("UPDATE segments SET name = '../../elsewhere'")
    connection.close()
    with pytest.raises(CorpusDamaged, match="name is a number"):
        opened(path)
    with pytest.raises(CorpusDamaged, match="name is a number"):
        Corpus(path).compact()
