"""A folder of documents, a corpus of it without vectors, and a model that is a script: the commands run whole, in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from rag.cli import options
from rag.cli.main import app
from tests.rag.serve.parts import Scripted

SUITS = "---\nlang: en\nyear: 2040\n---\n# Suits\n\nA suit may be worn outside for 90 minutes. It is checked by two people.\n"
TRAVEL = "# Travel\n\nThe descent in the capsule takes 22 minutes. Luggage is limited to 18 kilograms.\n"


class Rag:
    """Runs ``rag`` with arguments."""

    def __call__(self, *arguments: str | Path, input: str | None = None) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments], input=input, prog_name="rag")


@pytest.fixture
def rag() -> Rag:
    return Rag()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    (folder / "safety").mkdir(parents=True)
    (folder / "safety" / "suits.md").write_text(SUITS)
    (folder / "travel.md").write_text(TRAVEL)
    return folder


@pytest.fixture
def shelf(rag: Rag, docs: Path, tmp_path: Path) -> Path:
    """A corpus for BM25 only."""
    out = tmp_path / "shelf"
    result = rag("index", docs, "--out", out, "--encoder", "none")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Takes the place of every model that the options can name."""
    scripted = Scripted("A suit may be worn outside for 90 minutes [1].")

    def make(*_: Any) -> Scripted:
        return scripted

    for command in ("ask", "demo", "serve"):
        monkeypatch.setattr(f"rag.cli.{command}.make_model", make)
    assert options.make_model is not make
    return scripted
