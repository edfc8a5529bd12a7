from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters.training import randomness
from adapters.training.checkpoint import FACTS, TENSORS, Checkpoint, Checkpoints
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch

SETTINGS = {"lr": 0.1, "about": {"data": "abc"}}


def checkpoint(step: int, value: float = 1.0) -> Checkpoint:
    groups = {"trained": {"a.b/c": torch.full((2, 3), value)}, "optimizer": {"a.b/c/step": torch.tensor(4.0)}}
    return Checkpoint(step, groups, {"seen": [1, 0.1]})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "run" / ".killed.part").mkdir(parents=True)
    kept = Checkpoints(tmp_path / "run", SETTINGS)
    assert kept.newest() is None
    assert not kept.exist()
    for step in (9, 10):
        kept.write(checkpoint(step, step))
    found = Checkpoints(tmp_path / "run", SETTINGS).newest()
    assert found is not None
    assert (found.step, found.facts) == (10, {"seen": [1, 0.1]})
    assert torch.equal(found.tensors["trained"]["a.b/c"], torch.full((2, 3), 10.0))
    assert torch.equal(found.tensors["optimizer"]["a.b/c/step"], torch.tensor(4.0))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-000000010"]
    files = [path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert sorted(files) == [".json", ".safetensors"]


def test_a_half_written_one_is_never_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    kept.write(checkpoint(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adapters.training.checkpoint.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        kept.write(checkpoint(2))
    found = kept.newest()
    assert found is not None
    assert found.step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, SETTINGS)
    kept.write(checkpoint(1))
    with pytest.raises(AdapterError, match=r"step 2: 'a\.b/c' is not finite"):
        kept.write(checkpoint(2, float("inf")))
    found = kept.newest()
    assert found is not None
    assert found.step == 1


def test_another_run_is_refused(tmp_path: Path) -> None:
    Checkpoints(tmp_path, SETTINGS).write(checkpoint(1))
    with pytest.raises(AdapterMismatch, match=r"lr was 0\.1, is 0\.2"):
        Checkpoints(tmp_path, {**SETTINGS, "lr": 0.2}).newest()
    with pytest.raises(AdapterMismatch, match="of another run: more was None, is 1"):
        Checkpoints(tmp_path, {**SETTINGS, "more": 1}).newest()


@pytest.mark.parametrize("damage", ["tensors", "missing", "json", "facts", "format"])
def test_damage_is_noticed(tmp_path: Path, damage: str) -> None:
    Checkpoints(tmp_path, SETTINGS).write(checkpoint(1))
    tensors, facts = tmp_path / "step-000000001" / TENSORS, tmp_path / "step-000000001" / FACTS
    if damage == "tensors":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x01")
    elif damage == "missing":
        tensors.unlink()
    elif damage == "json":
        facts.write_text("{")
    elif damage == "facts":
        facts.write_text("{}")
    else:
        facts.write_text(json.dumps({**json.loads(facts.read_text()), "format": 9}))
    with pytest.raises(AdapterError if damage == "format" else AdapterDamaged, match=f"delete {tmp_path} to start afresh"):
        Checkpoints(tmp_path, SETTINGS).newest()


def test_random_generators_go_on_where_they_were() -> None:
    def draw() -> list[float]:
        return [random.random(), random.gauss(0, 1), float(np.random.rand()), float(np.random.randn()), float(torch.rand(()))]

    draw()
    tensors, facts = randomness.capture()
    drawn = draw()
    randomness.restore(tensors, json.loads(json.dumps(facts)))
    assert draw() == drawn
