from __future__ import annotations

import pytest

from rag.core.errors import ReadError
from retrievers.readers import SUFFIXES, Skipped, list_files, read, read_files


def test_a_folder_is_read_lazily_and_what_fails_is_named(put, tmp_path):
    put("a.txt", "A")
    broken = put("b.jsonl", '{"text": "fine"}\n{"no": 1}\n')
    picture = put("c.png", b"\x89PNG")
    put("d/e.md", "# E\n\nText")
    skipped: list[Skipped] = []
    documents = read_files(list_files(tmp_path), skipped.append)
    assert next(documents).id == "a.txt"
    assert skipped == []
    assert [d.id for d in documents] == ["d/e.md"]
    assert [s.path for s in skipped] == [broken, picture]
    assert skipped[0].reason.startswith("line 2: it has no field 'text'")
    assert skipped[1].reason.startswith("there is no reader for .png files; readable are .adoc, .csv, .docx")


def test_without_on_skip_the_error_is_raised(put, tmp_path):
    put("a.txt", "")
    with pytest.raises(ReadError, match="is empty"):
        list(read_files(list_files(tmp_path), None))


def test_ids_are_relative_to_the_root(put, tmp_path):
    path = put("x/y.txt", "text")
    assert [d.id for d in read(path, tmp_path)] == ["x/y.txt"]


def test_the_limit_reaches_the_file(put, tmp_path):
    put("a.txt", "long text")
    skipped: list[Skipped] = []
    assert list(read_files(list_files(tmp_path), skipped.append, max_bytes=3)) == []
    assert "more than the limit of 3" in skipped[0].reason


def test_suffixes_are_read_in_any_case(put):
    assert [d.text for d in read(put("A.TXT", "text"))] == ["text"]
    assert ".pdf" in SUFFIXES


def test_a_file_that_vanishes_is_skipped(put, tmp_path):
    path = put("a.txt", "A")
    files = list_files(tmp_path)
    path.unlink()
    skipped: list[Skipped] = []
    assert list(read_files(files, skipped.append)) == []
    assert "no such file" in skipped[0].reason
