from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from rag.core.errors import ReadError
from retrievers.corpus import Corpus
from tests.rag.cli.conftest import Rag


def account(rag: Rag, *arguments: str | Path) -> dict[str, Any]:
    result = rag("index", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def test_the_table_tells_what_happened(rag: Rag, docs: Path, tmp_path: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"<html>not a pdf</html>")
    result = rag("index", docs, "--out", tmp_path / "new", "--encoder", "none")
    assert result.exit_code == 0
    assert "2 added, 0 updated, 0 unchanged, 0 deleted" in result.stdout
    assert "3 found, 1 skipped" in result.stdout
    assert f"skipped {docs / 'broken.pdf'}: " in result.stdout
    assert len(Corpus.open(tmp_path / "new")) == 2


def test_a_second_run_updates_and_prunes(rag: Rag, docs: Path, shelf: Path) -> None:
    assert account(rag, docs, "--out", shelf)["unchanged"] == 2
    (docs / "travel.md").unlink()
    (docs / "safety" / "suits.md").write_text("# Suits\n\nA suit may be worn outside for two hours.\n")
    (docs / "food.txt").write_text("Supper is at six.")
    kept = account(rag, docs, "--out", shelf)
    assert (kept["added"], kept["updated"], kept["deleted"], kept["documents"]) == (1, 1, 0, 3)
    pruned = account(rag, docs, "--out", shelf, "--prune")
    assert (pruned["unchanged"], pruned["deleted"], pruned["documents"]) == (2, 1, 2)


def test_prune_keeps_what_cannot_be_read_at_the_moment(rag: Rag, docs: Path, shelf: Path) -> None:
    (docs / "travel.md").write_bytes(b"\x00\x01\x02\xff" * 100)
    (docs / "rows.csv").write_text("text\nSupper is at six.\n")
    assert account(rag, docs, "--out", shelf, "--prune")["documents"] == 3
    (docs / "rows.csv").write_bytes(b"\x00\x01\x02\xff" * 100)
    after = account(rag, docs, "--out", shelf, "--prune")
    assert (after["deleted"], after["documents"], len(after["skipped"])) == (0, 3, 2)


def test_prune_leaves_documents_of_other_folders(rag: Rag, docs: Path, shelf: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "food.txt").write_text("Supper is at six.")
    assert account(rag, other, "--out", shelf, "--prune")["documents"] == 3


def test_strict_stops_at_the_first_unreadable_file(rag: Rag, docs: Path, tmp_path: Path) -> None:
    (docs / "a-broken.pdf").write_bytes(b"<html>not a pdf</html>")
    result = rag("index", docs, "--out", tmp_path / "new", "--encoder", "none", "--strict")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {docs / 'a-broken.pdf'}: ")
    assert len(Corpus.open(tmp_path / "new")) == 0


def test_nothing_readable_is_an_error(rag: Rag, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = rag("index", tmp_path / "empty", "--out", tmp_path / "new", "--encoder", "none")
    assert (result.exit_code, "there are no files to read" in result.stderr) == (2, True)
    assert not (tmp_path / "new").exists()
    (tmp_path / "empty" / "x.pdf").write_bytes(b"no")
    result = rag("index", tmp_path / "empty", "--out", tmp_path / "new", "--encoder", "none")
    assert (result.exit_code, "none of the files could be read" in result.stderr) == (2, True)


def test_a_missing_path_is_named(rag: Rag, tmp_path: Path) -> None:
    result = rag("index", tmp_path / "nowhere", "--out", tmp_path / "new")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {tmp_path / 'nowhere'}: ")


def test_the_corpus_inside_the_indexed_folder_is_not_indexed(rag: Rag, docs: Path) -> None:
    first = account(rag, docs, "--out", docs / "shelf", "--encoder", "none")
    again = account(rag, docs, "--out", docs / "shelf")
    assert (first["files"], again["files"], again["unchanged"]) == (2, 2, 2)


def test_only_the_first_twenty_skipped_files_are_listed(rag: Rag, docs: Path, shelf: Path) -> None:
    for number in range(25):
        (docs / f"{number:02}.pdf").write_bytes(b"no")
    result = rag("index", docs, "--out", shelf)
    assert result.stdout.count("skipped /") == 20
    assert "and 5 more" in result.stdout
    assert len(account(rag, docs, "--out", shelf)["skipped"]) == 25


def test_another_encoder_is_refused(rag: Rag, docs: Path, shelf: Path) -> None:
    result = rag("index", docs, "--out", shelf, "--encoder", "minilm")
    assert result.exit_code == 2
    assert "encoder" in result.stderr


def test_another_chunk_size_cuts_again(rag: Rag, docs: Path, shelf: Path) -> None:
    (docs / "travel.md").write_text("# Travel\n\n" + "The capsule takes 22 minutes to reach the floor. " * 20)
    before = account(rag, docs, "--out", shelf)
    after = account(rag, docs, "--out", shelf, "--chunk-tokens", "20", "--overlap", "0")
    assert after["updated"] == 2
    assert after["passages"] > before["passages"]


def test_ctrl_c_says_that_the_same_command_resumes(rag: Rag, docs: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import retrievers.readers

    def interrupted(*_: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(retrievers.readers, "read_files", interrupted)
    result = rag("index", docs, "--out", shelf)
    assert result.exit_code == 130
    assert "what was committed stays; run the same command to resume" in result.stderr
    monkeypatch.undo()
    assert account(rag, docs, "--out", shelf)["unchanged"] == 2


def test_control_characters_of_file_names_do_not_reach_the_terminal(rag: Rag, docs: Path, shelf: Path) -> None:
    (docs / "\x1b[2Jx.pdf").write_bytes(b"no")
    result = rag("index", docs, "--out", shelf)
    assert "\x1b" not in result.stdout
    assert "[2Jx.pdf" in result.stdout


def test_the_reader_error_keeps_its_class(docs: Path) -> None:
    from rag.cli.indexing import sources

    with pytest.raises(ReadError):
        sources([docs / "nowhere"], docs / "out")


def test_a_corpus_whose_creation_was_killed_is_made_anew(rag: Rag, docs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (folder / "segments").mkdir(parents=True)
    (folder / "corpus.sqlite3").touch()
    assert account(rag, docs, "--out", folder, "--encoder", "none")["added"] == 2
