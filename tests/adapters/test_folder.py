"""An adapter's folder and a kill while it is replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from adapters import folder as disk
from rag.core.errors import AdapterError

CARD = {"method": "LoRA", "arguments": {}, "base": {"name": "", "fingerprint": ""}}


def written(folder: Path, value: float) -> None:
    disk.write(folder, {"peft_type": "LORA"}, {"a": torch.full((2,), value)}, {}, CARD)


def test_a_kill_between_the_two_renames_is_told_and_healed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "skill"
    written(folder, 1.0)
    rename, seen = os.replace, []

    def killed(source: Path, target: Path) -> None:
        seen.append(target)
        if len(seen) == 2:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        written(folder, 2.0)
    monkeypatch.undo()
    with pytest.raises(AdapterError, match=r"stopped between two renames; what stood there is .*\.skill\.\w+\.old: rename it"):
        disk.read_card(folder)
    (old,) = tmp_path.glob(".skill.*")
    assert disk.read_weights(old)[0]["a"].tolist() == [1.0, 1.0], "nothing is lost"

    written(folder, 3.0)
    assert [file.name for file in tmp_path.iterdir()] == ["skill"], "and what was left is cleared away"
    assert disk.read_weights(folder)[0]["a"].tolist() == [3.0, 3.0]
