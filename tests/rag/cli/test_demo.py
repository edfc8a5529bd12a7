from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rag.cli import demo
from retrievers.corpus import Corpus
from tests.rag.cli.conftest import Rag
from tests.rag.serve.parts import Scripted


@pytest.fixture(autouse=True)
def light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Indexes for BM25 only, in a folder of its own."""
    create = Corpus.create

    def without_vectors(path: Any, **options: Any) -> Corpus:
        return create(path, **{**options, "encoder": None})

    monkeypatch.setattr(Corpus, "create", without_vectors)
    monkeypatch.chdir(tmp_path)


def test_three_questions_are_answered_with_sources(rag: Rag, docs: Path, model: Scripted) -> None:
    result = rag("demo", "--docs", docs)
    assert result.exit_code == 0, result.stderr
    assert all(f"> {question}" in result.stdout for question in demo.QUESTIONS)
    assert result.stdout.count(model.text) == 3
    assert "[1] Suits  safety/suits.md" in result.stdout
    assert "2 documents, 2 passages" in result.stderr


def test_the_second_run_writes_nothing_again(rag: Rag, docs: Path, model: Scripted) -> None:
    assert rag("demo", "--docs", docs).exit_code == 0
    before = Corpus.open(".demo/handbook").manifest().generation
    assert rag("demo", "--docs", docs).exit_code == 0
    assert Corpus.open(".demo/handbook").manifest().generation == before


def test_the_questions_are_those_of_the_handbook() -> None:
    file = Path(__file__).parents[3] / "examples" / "handbook" / "questions.jsonl"
    known = {entry["question"]: entry for entry in map(json.loads, file.read_text("utf-8").splitlines())}
    suffixes = {Path(gold["document"]).suffix for question in demo.QUESTIONS for gold in known[question]["gold"][:1]}
    assert suffixes == {".md", ".html", ".pdf"}


def test_without_the_examples_it_says_what_to_do(rag: Rag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import rag as package

    monkeypatch.setattr(package, "__file__", str(tmp_path / "site-packages" / "rag" / "__init__.py"))
    result = rag("demo")
    assert (result.exit_code, "--docs FOLDER" in result.stderr) == (2, True)
    result = rag("demo", "--docs", tmp_path / "nowhere")
    assert (result.exit_code, "there is no such folder" in result.stderr) == (2, True)
