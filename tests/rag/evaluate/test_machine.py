"""The machine is what this process may use of it."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import rag
from rag.evaluate import machine as module
from rag.evaluate.machine import date, machine, versions


def test_a_container_may_use_less_than_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**29}\n")
    monkeypatch.setattr(module, "CONTROL_GROUP", tmp_path)
    found = machine()
    assert (found["cores"], found["memory_gib"]) == (1, 0.5)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    free = machine()
    monkeypatch.setattr(module, "CONTROL_GROUP", tmp_path / "none")
    assert machine() == free
    assert free["memory_gib"] > 0.5


def test_the_processor_has_a_name_also_where_linux_gives_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Fast 9000: X\n\nprocessor\t: 1\nmodel name\t: Fast 9000: X\n")
    monkeypatch.setattr(module, "CPU_INFO", info)
    assert machine()["cpu"] == "Fast 9000: X"
    monkeypatch.setattr(module, "CPU_INFO", tmp_path / "none")
    assert machine()["cpu"]


def test_a_gpu_is_named_only_where_torch_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "Big GPU")
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert machine()["gpu"] == "Big GPU"
    monkeypatch.delitem(sys.modules, "torch")
    assert "gpu" not in machine()
    assert "torch" not in sys.modules


def test_versions_are_those_of_what_is_installed() -> None:
    found = versions(["pytest", "no-such-package"])
    assert found == {"graft-rag": rag.__version__, "python": found["python"], "pytest": pytest.__version__}
    assert found["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")


def test_the_date_is_in_utc_to_the_second() -> None:
    assert len(date()) == len("2026-01-31T23:59:59Z")
    assert date().endswith("Z")
