from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.core.errors import ConfigError, CorpusError, CorpusLocked, CorpusNotFound, InputError, ModelError
from rag.core.registry import configuration, registered
from rag.core.types import Document, Passage
from retrievers.analyzers import Analyzer
from retrievers.bm25 import BM25
from retrievers.corpus import Corpus, Summary
from retrievers.corpus.merge import FAN
from retrievers.dense import Dense
from tests.retrievers.stubs import HashEncoder, LineChunker, document, documents


def counts(summary: Summary) -> tuple[int, int, int, int, int, int]:
    return summary.added, summary.updated, summary.unchanged, summary.deleted, summary.skipped, summary.passages


def reopened(corpus: Corpus) -> Corpus:
    return Corpus.open(corpus.folder, encoder=HashEncoder(), chunker=LineChunker())


def test_added_documents_are_there_with_all_they_said(corpus: Corpus) -> None:
    assert counts(corpus.add([document(3)])) == (1, 0, 0, 0, 0, 3)
    (record,) = reopened(corpus).documents()
    assert (record.id, record.title, record.source, record.format, record.passages) == ("doc0003", "Title 3", "/src/3", "text", 3)
    assert record.metadata == {"n": 3, "even": False}
    first, second, third = corpus.each_passage("doc0003")
    assert [first.id, second.id, third.id] == ["doc0003#0", "doc0003#1", "doc0003#2"]
    text = document(3).text
    assert all(text[p.start : p.end] == p.text for p in (first, second, third))
    assert (first.document, first.title, first.metadata) == ("doc0003", "Title 3", {"n": 3, "even": False})


def test_the_same_documents_again_are_skipped_without_encoding(
    corpus: Corpus, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus.add(documents(10))
    generation = corpus.manifest().generation

    def refuse(*_: Any) -> np.ndarray:
        raise AssertionError("encoded again")

    monkeypatch.setattr(encoder, "encode", refuse)
    assert counts(corpus.add(documents(10))) == (0, 0, 10, 0, 0, 0)
    assert corpus.manifest().generation == generation


@pytest.mark.parametrize(
    "change",
    [{"text": "other"}, {"title": "other"}, {"metadata": {"n": 4}}, {"format": "markdown"}],
    ids=["text", "title", "metadata", "format"],
)
def test_a_document_with_other_content_is_replaced(corpus: Corpus, change: dict[str, Any]) -> None:
    corpus.add(documents(5))
    changed = replace(document(2), **change)
    assert counts(corpus.add([changed]))[:3] == (0, 1, 0)
    assert len(list(corpus.documents())) == 5
    corpus.verify()


def test_another_source_is_noted_without_writing_passages(corpus: Corpus) -> None:
    corpus.add(documents(2))
    assert counts(corpus.add([replace(document(1), source="/elsewhere")])) == (0, 0, 1, 0, 0, 0)
    assert [record.source for record in corpus.documents()] == ["/src/0", "/elsewhere"]


def test_another_chunker_cuts_anew(corpus: Corpus, encoder: HashEncoder) -> None:
    class WholeChunker:
        identity = "whole"

        def chunk(self, document: Document) -> list[Passage]:
            return [Passage(f"{document.id}#0", document.text, end=len(document.text))]

    corpus.add(documents(3))
    other = Corpus.open(corpus.folder, encoder=encoder, chunker=WholeChunker())
    assert counts(other.add(documents(3))) == (0, 3, 0, 0, 0, 3)
    assert other.manifest().chunker.identity == "whole"


def test_the_last_of_two_versions_in_one_call_wins(corpus: Corpus) -> None:
    assert counts(corpus.add([document(0, 1), document(1), document(0, 2)]))[:2] == (2, 1)
    assert {p.text[-2:] for p in corpus.each_passage("doc0000")} == {"v2"}
    corpus.verify()


def test_a_document_without_text_is_counted_and_remembered(corpus: Corpus) -> None:
    assert counts(corpus.add([Document("blank", " \n "), document(0)])) == (1, 0, 0, 0, 1, 3)
    assert counts(corpus.add([Document("blank", " \n ")])) == (0, 0, 0, 0, 1, 0)
    assert [(record.id, record.passages) for record in corpus.documents()] == [("blank", 0), ("doc0000", 3)]


def test_deleting_counts_what_was_there(corpus: Corpus) -> None:
    corpus.add(documents(5))
    assert corpus.delete(["doc0001", "doc0001", "nobody", "doc0003"]) == 2
    assert [record.id for record in corpus.documents()] == ["doc0000", "doc0002", "doc0004"]
    assert len(corpus) == 9
    assert corpus.manifest().tombstones == 6
    corpus.verify()


def test_the_text_of_a_deleted_document_leaves_the_database_file(corpus: Corpus) -> None:
    corpus.add([Document("secret", "the password is xyzzyplugh"), document(0)])
    corpus.delete(["secret"])
    corpus.compact()
    corpus.close()
    assert not [path for path in corpus.folder.rglob("*") if path.is_file() and b"xyzzyplugh" in path.read_bytes()]


def test_deleting_everything_leaves_an_empty_corpus_that_can_be_filled_again(corpus: Corpus) -> None:
    corpus.add(documents(4))
    corpus.delete([record.id for record in corpus.documents()])
    assert len(corpus) == 0
    assert corpus.manifest().segments == ()
    assert list((corpus.folder / "segments").iterdir()) == []
    corpus.compact()
    with pytest.raises(CorpusError, match="is empty"):
        BM25(corpus).search("w1")
    with pytest.raises(CorpusError, match="is empty"):
        Dense(corpus).search("w1")
    corpus.add(documents(4))
    corpus.verify()


def test_prune_deletes_what_one_root_no_longer_has(corpus: Corpus) -> None:
    corpus.add(documents(4), root="/a")
    corpus.add([Document("other", "kept text")], root="/b")
    summary = corpus.add(documents(2), root="/a", prune=True)
    assert (summary.unchanged, summary.deleted) == (2, 2)
    assert [record.id for record in corpus.documents()] == ["doc0000", "doc0001", "other"]


def test_an_iterator_that_fails_keeps_the_batches_before(corpus: Corpus) -> None:
    def broken() -> Iterator[Document]:
        yield from documents(10)
        raise OSError("the disk with the documents is gone")

    with pytest.raises(OSError, match="is gone"):
        corpus.add(broken(), batch_passages=6)
    assert len(corpus) == 30
    assert counts(corpus.add(documents(12), batch_passages=6))[:3] == (2, 0, 10)


def test_documents_are_taken_one_by_one_and_progress_follows_each_commit(corpus: Corpus) -> None:
    taken: list[int] = []
    seen: list[tuple[int, int]] = []

    def stream() -> Iterator[Document]:
        for i in range(9):
            taken.append(i)
            yield document(i)

    corpus.add(stream(), batch_passages=9, progress=lambda summary: seen.append((len(taken), summary.added)))
    assert seen == [(3, 3), (6, 6), (9, 9)]


def test_one_document_larger_than_a_batch_is_one_commit(corpus: Corpus) -> None:
    corpus.add([document(0, lines=50)], batch_passages=8)
    assert len(corpus) == 50
    assert len(corpus.manifest().segments) == 1
    corpus.verify()


def test_passages_that_are_cut_already(corpus: Corpus) -> None:
    given = [Passage("a", "one"), Passage("b1", "two", "b"), Passage("b2", "three", "b"), Passage("c", "  ")]
    assert counts(corpus.add_passages(given)) == (2, 0, 0, 0, 1, 3)
    assert counts(corpus.add_passages(given)) == (0, 0, 2, 0, 1, 0)
    assert [(p.id, p.document) for p in corpus.each_passage()] == [("a", "a"), ("b1", "b"), ("b2", "b")]
    assert counts(corpus.add_passages([Passage("b1", "two!", "b")])) == (0, 1, 0, 0, 0, 1)
    assert [p.text for p in corpus.each_passage("b")] == ["two!"]


def test_passages_of_a_document_must_come_together(corpus: Corpus) -> None:
    with pytest.raises(InputError, match=r"'b'.*one after the other"):
        corpus.add_passages([Passage("b1", "x", "b"), Passage("a", "y"), Passage("b2", "z", "b")])


def test_two_passages_with_one_id_are_refused(corpus: Corpus) -> None:
    corpus.add_passages([Passage("x", "one", "first")])
    with pytest.raises(InputError, match="passages have the id 'x'"):
        corpus.add_passages([Passage("x", "two", "second")])
    with pytest.raises(InputError, match="passages have the id 'y'"):
        corpus.add_passages([Passage("y", "one", "third"), Passage("y", "two", "third")])
    corpus.verify()
    assert len(corpus) == 1


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Document("", "x"), "an id is a string"),
        (Document("  ", "x"), "an id is a string"),
        (Document("i" * 3000, "x"), "1 to 2048"),
        (Document("a\0", "x"), "NUL"),
        (Document("a", "x\ud800"), "surrogate"),
        (Document("a", "nul \0"), "NUL"),
        (Document("a", 5), "must be a string"),  # type: ignore[arg-type]
        (Document("a", "x", format="html"), "'text' or 'markdown'"),  # type: ignore[arg-type]
        (Document("a", "x", metadata={"n": float("nan")}), "finite"),
        (Document("a", "x", metadata={"n": 2**70}), "64 bits"),
        (Document("a", "x", metadata={"n": [1]}), "list is not allowed"),  # type: ignore[dict-item]
        (Document("a", "x", metadata={"": 1}), "metadata key"),
        (Document("a", "x", metadata="no"), "must be a mapping"),  # type: ignore[arg-type]
        ("text", "takes documents"),
    ],
)
def test_what_the_corpus_cannot_hold_is_refused(corpus: Corpus, bad: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        corpus.add([bad])
    assert len(corpus) == 0


def test_bad_arguments(corpus: Corpus, tmp_path: Path, encoder: HashEncoder) -> None:
    with pytest.raises(InputError, match="batch_passages"):
        corpus.add(documents(1), batch_passages=0)
    with pytest.raises(InputError, match="takes passages"):
        corpus.add_passages([document(0)])  # type: ignore[list-item]
    with pytest.raises(InputError, match="not one string"):
        corpus.delete("doc0001")
    with pytest.raises(ConfigError, match="allowed are: auto, flat, hnsw"):
        corpus.compact("annoy")
    with pytest.raises(ConfigError, match="allowed are: auto, flat, hnsw"):
        Corpus.create(tmp_path / "new", encoder=encoder, chunker=LineChunker(), index="annoy")
    assert not (tmp_path / "new").exists()
    with pytest.raises(CorpusError, match="writer is closed"):
        corpus.writer().add(documents(1))


def test_create_refuses_a_folder_in_use(corpus: Corpus, tmp_path: Path, encoder: HashEncoder) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("x")
    for path in (corpus.folder, tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(InputError, match=r"open it with Corpus\.open"):
            Corpus.create(path, encoder=encoder, chunker=LineChunker())
    (tmp_path / "empty").mkdir()
    assert len(Corpus.create(tmp_path / "empty", encoder=encoder, chunker=LineChunker())) == 0


def test_open_says_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFound, match=r"nowhere.*rag index"):
        Corpus.open(tmp_path / "nowhere")
    with pytest.raises(CorpusNotFound, match="rag index"):
        BM25(Corpus(tmp_path)).search("x")


@pytest.mark.parametrize("vectors", [np.zeros((1, 32)), np.full((1, 32), np.nan), np.ones((1, 5)), np.ones((2, 32))])
def test_an_encoder_that_breaks_its_contract_is_found_out(
    corpus: Corpus, encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch, vectors: np.ndarray
) -> None:
    monkeypatch.setattr(encoder, "encode", lambda *_: vectors)
    with pytest.raises(ModelError, match="HashEncoder"):
        corpus.add_passages([Passage("a", "text")])
    assert len(corpus) == 0
    corpus.verify()


def test_a_second_writer_is_refused_with_the_first_ones_process(corpus: Corpus) -> None:
    with corpus.writer() as writer:
        with pytest.raises(CorpusLocked, match=f"process {os.getpid()} is writing.*corpus.lock"):
            reopened(corpus).add(documents(1))
        program = (
            f"from retrievers.corpus import Corpus\nfrom rag.core.errors import CorpusLocked\n"
            f"try:\n    Corpus({str(corpus.folder)!r}).delete(['x'])\nexcept CorpusLocked as error:\n    print(error)"
        )
        said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        assert f"process {os.getpid()} is writing" in said
        writer.add(documents(2))
    assert counts(reopened(corpus).add(documents(2)))[2] == 2


def test_read_only_does_not_write(corpus: Corpus) -> None:
    corpus.add(documents(2))
    reader = Corpus.open(corpus.folder, encoder=HashEncoder(), read_only=True)
    assert BM25(reader).search("title")
    for change in (lambda: reader.add(documents(1)), lambda: reader.delete(["a"]), reader.compact):
        with pytest.raises(CorpusError, match="read_only"):
            change()


def test_small_segments_are_merged_as_they_pile_up(corpus: Corpus) -> None:
    with corpus.writer() as writer:
        for i in range(100):
            writer.add([document(i)])
            assert len(corpus.manifest().segments) <= 3 * FAN
    manifest = corpus.manifest()
    assert manifest.passages == 300
    firsts = [(segment.first, segment.last) for segment in manifest.segments]
    assert all(one[1] < two[0] for one, two in itertools.pairwise(firsts))
    assert {p.name for p in (corpus.folder / "segments").iterdir()} == {s.name for s in manifest.segments}
    corpus.verify()


def test_compacting_leaves_one_segment_and_the_same_answers(corpus: Corpus) -> None:
    corpus.add(documents(20), batch_passages=9)
    corpus.add(documents(8, version=1), batch_passages=9)
    corpus.delete(["doc0011", "doc0012"])

    def answers() -> list[tuple[str, float]]:
        return [(hit.passage.id, hit.score) for r in (BM25(corpus), Dense(corpus)) for hit in r.search("w1 w4 title", k=30)]

    before = answers()
    corpus.compact()
    manifest = corpus.manifest()
    assert (len(manifest.segments), manifest.tombstones, manifest.passages) == (1, 0, 54)
    assert answers() == before
    generation = manifest.generation
    corpus.compact()
    assert corpus.manifest().generation == generation
    corpus.verify()


def test_export_holds_every_document_and_passage(corpus: Corpus, tmp_path: Path) -> None:
    corpus.add(documents(4))
    target = tmp_path / "all.jsonl"
    assert corpus.export(target) == 16
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["id"] for line in lines if line["type"] == "document"] == [f"doc{i:04d}" for i in range(4)]
    passages = [line for line in lines if line["type"] == "passage"]
    assert {p["id"]: p["text"] for p in passages} == {p.id: p.text for p in corpus.each_passage()}
    assert passages[0]["metadata"] == {"even": True, "n": 0}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_an_export_that_fails_leaves_the_old_file(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus.add(documents(2))
    target = tmp_path / "all.jsonl"
    target.write_text("old")
    monkeypatch.setattr("retrievers.corpus.durable.rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(CorpusError, match="disk is full"):
        corpus.export(target)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".tmp")] == []


def test_info_counts(corpus: Corpus) -> None:
    corpus.add(documents(5))
    corpus.delete(["doc0000"])
    info = corpus.info()
    assert (info["documents"], info["passages"], info["tombstones"], info["dim"]) == (4, 12, 3, 32)
    assert info["encoder"] == HashEncoder().identity
    assert info["bytes"] > 1000
    assert "exactly" in info["note"]


def test_a_corpus_without_an_encoder_serves_bm25_only(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "lexical", encoder=None, chunker=LineChunker())
    corpus.add(documents(3))
    corpus.compact("hnsw")
    corpus.verify()
    assert BM25(corpus).search("title")
    assert corpus.info()["encoder"] == "none (BM25 only)"
    with pytest.raises(CorpusError, match="without an encoder"):
        Dense(corpus).search("title")


def test_registered_components_are_remembered_and_others_asked_for(tmp_path: Path, encoder: HashEncoder) -> None:
    made = Corpus.create(tmp_path / "c", encoder=encoder, analyzer=Analyzer(language="german"), chunker=LineChunker())
    made.add(documents(1))
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.load_analyzer().identity == Analyzer(language="german").identity
    assert BM25(corpus).search("title")
    with pytest.raises(CorpusError, match=r"custom encoder \(hash.*Corpus.open\(.*encoder="):
        Dense(corpus).search("title")
    with pytest.raises(CorpusError, match="custom chunker"):
        corpus.add(documents(2))


def test_the_component_can_be_written_to_yaml(corpus: Corpus) -> None:
    assert registered("Corpus") is Corpus
    plain = Corpus("handbook")
    assert configuration(plain) == {"path": "handbook"}
    assert bool(plain)
    assert repr(plain) == "Corpus('handbook')"


def test_a_corpus_with_the_default_chunker(tmp_path: Path, encoder: HashEncoder) -> None:
    pytest.importorskip("retrievers.chunkers")
    corpus = Corpus.create(tmp_path / "c", encoder=encoder)
    corpus.add([Document("guide", "# Suits\n\nA suit may be worn outside for an hour.\n", format="markdown")])
    again = Corpus.open(tmp_path / "c", encoder=encoder)
    assert counts(again.add([Document("guide", "# Suits\n\nA suit may be worn outside for an hour.\n", format="markdown")]))[2] == 1
    assert "worn outside" in BM25(again).search("suit outside")[0].passage.text
