from __future__ import annotations

import os
from pathlib import Path

import pytest

from rag.core.errors import ReadError
from rag.evaluate.datasets import catalogue
from rag.evaluate.datasets.formats import known_formats
from rag.evaluate.metrics import metric
from tests.rag.evaluate.datasets.conftest import Write

ROW = {"question": "Why?", "answers": ["so"]}


def test_every_format_is_listed_with_what_and_files() -> None:
    entries = catalogue()
    names = [entry.name for entry in entries]
    assert names == sorted(names)
    assert {"squad", "nq_open", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "multihop_rag", "strategyqa", "rgb", "triviaqa"} < set(
        names
    )
    assert {"asqa", "beir", "scifact", "noveleval", "bbh", "gsm8k", "svamp", "musique_contexts", "own"} < set(names)
    assert all(entry.what and entry.files for entry in entries)
    assert all(entry.licence for entry in entries if entry.name != "own")


def test_every_format_names_metrics_that_exist() -> None:
    for format in known_formats():
        assert format.metrics
        assert [metric(name).name for name in format.metrics] == list(format.metrics)


def test_a_folder_lists_its_sets_with_sizes_and_says_what_is_broken(write: Write, tmp_path: Path) -> None:
    write("a/own.jsonl", [ROW])
    write("a/notes.json", {"text": "no data set"})
    write("a/.hidden.jsonl", [ROW])
    write("a/picture.png", b"\x89PNG")
    write("b/nq.jsonl", [{"question": "who", "answer": ["a"]}, {"question": "who", "answer": []}])
    entries = catalogue(tmp_path)
    assert [(e.name, e.format) for e in entries] == [("own", "own"), ("nq", "nq_open")]
    assert entries[0].files == str(tmp_path / "a/own.jsonl")
    assert entries[0].size == "1 question"
    assert entries[1].size.startswith("cannot be read: ")
    assert "1 question has no answer" in entries[1].size


def test_links_are_not_followed(write: Write, tmp_path: Path) -> None:
    write("a/own.jsonl", [ROW])
    os.symlink(tmp_path, tmp_path / "a/loop")
    assert len(catalogue(tmp_path)) == 1


def test_a_folder_that_is_none(write: Write, tmp_path: Path) -> None:
    for path in (tmp_path / "none", write("own.jsonl", [ROW])):
        with pytest.raises(ReadError, match="there is no such folder"):
            catalogue(path)
