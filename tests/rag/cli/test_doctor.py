from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rag.cli.doctor import shadowed_rooms
from tests.rag.cli.conftest import Rag


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_sound_installation_and_corpus(rag: Rag, shelf: Path) -> None:
    result = rag("doctor", "--corpus", shelf, "--json")
    data = json.loads(result.stdout)
    by_name = {check["name"]: check for check in data["checks"]}
    assert by_name["corpus"]["status"] == by_name["corpus files"]["status"] == "ok"
    assert by_name["corpus encoder"]["detail"] == "none, BM25 only"
    assert by_name["packages"]["status"] == "ok"
    assert (result.exit_code, data["ok"]) == (0, True)
    table = rag("doctor", "--corpus", shelf)
    assert table.exit_code == 0
    assert "every checksum agrees" in table.stdout


def test_a_damaged_corpus_fails(rag: Rag, shelf: Path) -> None:
    file = next((shelf / "segments").rglob("*.npy"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    result = rag("doctor", "--corpus", shelf)
    assert result.exit_code == 1
    assert "failed" in result.stdout
    assert file.name in result.stdout


def test_no_corpus_fails(rag: Rag, tmp_path: Path) -> None:
    assert rag("doctor", "--corpus", tmp_path / "nowhere").exit_code == 1


def test_another_encoder_fails(rag: Rag, shelf: Path) -> None:
    with sqlite3.connect(shelf / "corpus.sqlite3") as database:
        other = {"identity": "sentence-transformers other", "component": "SentenceEncoder", "arguments": {"model": str(shelf)}}
        database.execute("UPDATE meta SET value = ? WHERE key = 'encoder'", [json.dumps(other)])
    result = rag("doctor", "--corpus", shelf, "--json")
    assert result.exit_code == 1
    assert [check["name"] for check in json.loads(result.stdout)["checks"] if check["status"] == "failed"] == ["corpus encoder"]


def test_a_cache_that_cannot_be_written_fails(rag: Rag, cache: Path) -> None:
    cache.write_text("a file stands in the way")
    result = rag("doctor", "--json")
    assert result.exit_code == 1
    assert [check["name"] for check in json.loads(result.stdout)["checks"] if check["status"] == "failed"] == ["cache"]


def test_no_room_is_shadowed_here() -> None:
    assert shadowed_rooms() == []


def test_a_foreign_module_on_the_path_is_named(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("")
    (tmp_path / "adapters").mkdir()
    (tmp_path / "adapters" / "__init__.py").write_text("")
    code = "from rag.cli.doctor import shadowed_rooms; print(shadowed_rooms())"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert str(tmp_path / "tools.py") in result.stdout
    assert str(tmp_path / "adapters" / "__init__.py") in result.stdout
    command = [sys.executable, "-m", "rag.cli.main", "doctor", "--json"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert str(tmp_path / "tools.py") in result.stdout


def test_a_module_in_this_folder_that_is_not_on_the_path_is_a_note(rag: Rag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tools.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    data = json.loads(rag("doctor", "--json").stdout)
    notes = [check for check in data["checks"] if check["name"] == "package tools"]
    assert [note["status"] for note in notes] == ["note"]
    assert str(tmp_path / "tools.py") in notes[0]["detail"]
