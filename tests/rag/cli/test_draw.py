from __future__ import annotations

from pathlib import Path

import pytest

from tests.rag.cli.conftest import Rag


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text("nodes:\n  one: {type: First}\n  two: {type: First}\nedges: [one -> two]\n")
    return path


def test_mermaid_goes_to_stdout(rag: Rag, file: Path) -> None:
    result = rag("draw", file)
    assert result.exit_code == 0
    assert result.stdout.startswith("flowchart LR\n")
    assert "one -- values --> two" in result.stdout


def test_a_picture_goes_to_its_file(rag: Rag, file: Path, tmp_path: Path) -> None:
    result = rag("draw", file, "-o", tmp_path / "graph.svg")
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / "graph.svg").read_text().startswith("<svg")


@pytest.mark.parametrize(("name", "says"), [("graph.png", ".svg"), ("nowhere/graph.svg", "cannot be written")])
def test_bad_outputs(rag: Rag, file: Path, tmp_path: Path, name: str, says: str) -> None:
    result = rag("draw", file, "-o", tmp_path / name)
    assert (result.exit_code, says in result.stderr) == (2, True)


def test_a_bad_file_is_named(rag: Rag, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("nodes: [")
    result = rag("draw", tmp_path / "bad.yaml")
    assert (result.exit_code, str(tmp_path / "bad.yaml") in result.stderr) == (2, True)
