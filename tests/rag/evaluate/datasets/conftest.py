"""Writes tiny files in the published forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., Path]
PUBLISHED = Path(__file__).parents[4] / "../shared/data"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(name, content)``: text as it is; a list for a .jsonl as lines; anything else as one JSON value."""

    def write_file(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
            return path
        if not isinstance(content, str):
            lines = name.endswith(".jsonl") and isinstance(content, list)
            content = "".join(json.dumps(row) + "\n" for row in content) if lines else json.dumps(content)
        path.write_text(content, "utf-8")
        return path

    return write_file


@pytest.fixture(scope="session")
def published() -> Path:
    """The folder of the real benchmark files."""
    if not PUBLISHED.is_dir():
        pytest.skip(f"the published data sets are not at {PUBLISHED}")
    return PUBLISHED.resolve()
