"""Results that are kept as soon as they are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.kept import Kept
from rag.core.errors import InputError


def test_a_result_is_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"n": len(made)}

    kept = Kept(tmp_path)
    assert [kept.value("a", {"lr": 0.1}, make) for _ in range(2)] == [{"n": 1}] * 2
    assert kept.value("a", {"lr": 0.2}, make) == {"n": 2}
    assert kept.value("a", {"lr": 0.1}, make, anew=True) == {"n": 3}
    assert kept.value("a", {"lr": 0.1}, make) == {"n": 3}


@pytest.mark.parametrize("text", ["{", "[]", '{"key": {}}', '{"key": {"lr": 2}, "value": {}}'])
def test_a_damaged_file_is_named(tmp_path: Path, text: str) -> None:
    kept = Kept(tmp_path)
    kept.value("a", {"lr": 1}, lambda: {"n": 1})
    file = next(tmp_path.glob("a-*.json"))
    file.write_text(text)
    with pytest.raises(InputError, match=f"{file.name}.*delete it"):
        kept.value("a", {"lr": 1}, lambda: {"n": 1})
