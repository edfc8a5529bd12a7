"""The supervisor with a stand-in for vLLM."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from generators.models import supervisor as module
from tests.generators.models.supervisor.parts import SCRIPT, Fake


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Fake:
    monkeypatch.setattr(module, "check_possible", lambda port: None)
    made = Fake(tmp_path)

    def command_of(path: str, name: str, port: int, adapters: bool, options: Any) -> list[str]:
        made.commands.append((path, name, port, adapters, options))
        return [sys.executable, "-I", str(SCRIPT), str(port), str(tmp_path)]

    monkeypatch.setattr(module, "command_of", command_of)
    made.plan("ok")
    return made
