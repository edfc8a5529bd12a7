from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import load
from adapters.folder import CARD, CONFIG, WEIGHTS
from adapters.registry import Registry
from adapters.registry.registry import default_folder
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch, InputError
from tests.adapters.lorahub.parts import logits, noisy, saved
from tests.adapters.tiny import tiny


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "registry")


def of_peft(folder: Path, on: str = "llama", **options: Any) -> Path:
    """A LoRA as PEFT itself writes it."""
    noisy(on, **options).model.save_pretrained(folder)
    return folder


def left(registry: Registry) -> list[str]:
    """All that is in the registry's folder but its lock."""
    return sorted(file.name for file in registry.folder.iterdir() if file.name != ".lock") if registry.folder.exists() else []


def test_an_adapter_of_graft_is_taken_in_as_it_is(registry: Registry, tmp_path: Path) -> None:
    source = saved(tmp_path / "Chemistry", card={"metrics": {"loss": 1.5}, "task": "acids"})
    entry = registry.add(source)
    assert (entry.name, entry.method, entry.metrics, entry.problem) == ("chemistry", "LoRA", {"loss": 1.5}, None)
    assert len(entry.fingerprint) == 64
    assert entry.bytes == sum(file.stat().st_size for file in registry.path("chemistry").iterdir())
    shutil.rmtree(source)
    assert registry.entries() == [entry]
    assert registry.show("chemistry")[1]["task"] == "acids"
    worn = load(tiny("llama", torch.float64), registry.path("chemistry"))
    assert torch.equal(logits(worn.model), logits(noisy().model))


def test_a_folder_of_peft_is_worn_when_its_base_is_known(registry: Registry, tmp_path: Path) -> None:
    source = of_peft(tmp_path / "peft", rank_stabilised=True)
    model = tiny("llama", torch.float64)
    entry = registry.add(source, "units", model, "my-base")
    assert (entry.method, entry.base) == ("LoRA", "my-base")
    worn = load(model, registry.path("units"))
    assert torch.equal(logits(worn.model), logits(noisy(rank_stabilised=True).model))


def test_a_folder_of_peft_without_its_base_says_so(registry: Registry, tmp_path: Path) -> None:
    entry = registry.add(of_peft(tmp_path / "peft"))
    assert (entry.fingerprint, registry.show("peft")[1]["taken_from"]) == ("", "PEFT")
    with pytest.raises(AdapterMismatch):
        load(tiny("llama", torch.float64), registry.path("peft"))
    registry.add(registry.path("peft"), base=tiny("llama", torch.float64), replace=True)
    worn = load(tiny("llama", torch.float64), registry.path("peft"))
    assert torch.equal(logits(worn.model), logits(noisy().model))


def test_an_adapter_of_another_base_is_refused(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(AdapterMismatch, match="another base model"):
        registry.add(saved(tmp_path / "graft"), base=tiny("llama", seed=5))
    with pytest.raises(AdapterMismatch, match="has no layer"):
        registry.add(of_peft(tmp_path / "peft"), base=tiny("gpt2"))
    assert left(registry) == []


def test_names_are_taken_once_unless_replaced(registry: Registry, tmp_path: Path) -> None:
    first, second = saved(tmp_path / "one"), saved(tmp_path / "two", seed=2, card={"task": "second"})
    registry.add(first, "same")
    with pytest.raises(InputError, match="there is an adapter 'same' already"):
        registry.add(second, "same")
    registry.add(second, "same", replace=True)
    assert registry.show("same")[1]["task"] == "second"
    assert left(registry) == ["same"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", ".hidden", "Upper", "a b", "ä", "x" * 65, "a\n", "-x"])
def test_names_that_are_not_allowed(registry: Registry, tmp_path: Path, name: str) -> None:
    source = saved(tmp_path / "one")
    for act in (lambda: registry.add(source, name), lambda: registry.path(name), lambda: registry.remove(name)):
        with pytest.raises(InputError, match="an adapter's name has 1 to 64"):
            act()
    assert left(registry) == []


def test_a_link_is_not_followed_out_of_the_registry(registry: Registry, tmp_path: Path) -> None:
    outside = saved(tmp_path / "outside")
    registry.folder.mkdir()
    (registry.folder / "link").symlink_to(outside)
    for act in (lambda: registry.path("link"), lambda: registry.remove("link"), lambda: registry.add(outside, "link", replace=True)):
        with pytest.raises(AdapterError, match="a link out of the registry"):
            act()
    assert (registry.entries(), (outside / WEIGHTS).is_file()) == ([], True)


def test_removed_it_is_gone(registry: Registry, tmp_path: Path) -> None:
    registry.add(saved(tmp_path / "one"))
    registry.remove("one")
    assert (registry.entries(), left(registry)) == ([], [])
    with pytest.raises(AdapterError, match=r"there is no adapter 'one'.* there are: none"):
        registry.remove("one")


def test_a_damaged_adapter_is_listed_shown_as_such_and_can_be_removed(registry: Registry, tmp_path: Path) -> None:
    registry.add(saved(tmp_path / "good"))
    registry.add(saved(tmp_path / "broken"))
    (registry.folder / "broken" / CARD).write_text("{")
    broken, good = registry.entries()
    assert (good.problem, "cannot be read" in (broken.problem or "")) == (None, True)
    with pytest.raises(AdapterDamaged):
        registry.show("broken")
    registry.remove("broken")
    assert left(registry) == ["good"]


def test_what_cannot_be_read_is_refused_and_leaves_nothing(registry: Registry, tmp_path: Path) -> None:
    source = saved(tmp_path / "one")
    (source / WEIGHTS).write_bytes((source / WEIGHTS).read_bytes()[:-1])
    with pytest.raises(AdapterDamaged):
        registry.add(source)
    with pytest.raises(AdapterError, match="is no folder"):
        registry.add(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(AdapterError, match="there is no adapter"):
        registry.add(tmp_path / "empty")
    assert left(registry) == []


def test_a_failure_while_writing_leaves_nothing(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path / "one")
    registry.add(source)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("adapters.folder.flush", full)
    for name, replace in (("two", False), ("one", True)):
        with pytest.raises(OSError, match="No space left"):
            registry.add(source, name, replace=replace)
    assert left(registry) == ["one"]
    assert registry.entries()[0].problem is None


def test_writers_take_turns(registry: Registry, tmp_path: Path) -> None:
    """Two processes add under one name: one does, the other is told that it is taken."""
    source = saved(tmp_path / "one")
    code = (
        "import sys\nfrom adapters.registry import Registry\nfrom rag.core.errors import InputError\n"
        "try:\n    Registry(sys.argv[1]).add(sys.argv[2], 'same')\nexcept InputError:\n    sys.exit(7)\n"
    )
    many = [subprocess.Popen([sys.executable, "-c", code, str(registry.folder), str(source)]) for _ in range(2)]
    assert sorted(one.wait() for one in many) == [0, 7]
    assert (left(registry), registry.entries()[0].problem) == (["same"], None)


def test_a_writer_that_never_ends_is_told(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from filelock import FileLock

    monkeypatch.setattr("adapters.registry.registry._PATIENCE", 0.05)
    registry.folder.mkdir()
    with FileLock(registry.folder / ".lock"), pytest.raises(AdapterError, match="another process has been writing"):
        registry.add(saved(tmp_path / "one"))


@pytest.mark.parametrize("form", ["lora", "merged"])
def test_export(registry: Registry, tmp_path: Path, form: Any) -> None:
    registry.add(saved(tmp_path / "one"))
    model = tiny("llama", torch.float64)
    before = logits(model)
    factors = registry.export("one", form, model, tmp_path / "out")
    assert torch.equal(logits(model), before)
    if form == "lora":
        assert factors is not None
        assert factors.residual == 0
        again = load(model, tmp_path / "out").model
    else:
        again = type(model).from_pretrained(tmp_path / "out", dtype=torch.float64)
    torch.testing.assert_close(logits(again), logits(noisy().model), rtol=0, atol=1e-6)


def test_where_the_registry_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAFT_ADAPTERS", str(tmp_path / "there"))
    assert Registry().folder == default_folder() == tmp_path / "there"
    monkeypatch.delenv("GRAFT_ADAPTERS")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    assert default_folder().name == "adapters"
    assert os.fspath(default_folder()).startswith(os.fspath(tmp_path)) or sys.platform != "linux"
    assert Registry(tmp_path / "nowhere").entries() == []


def test_configurations_of_taken_adapters_stay_readable_by_peft(registry: Registry, tmp_path: Path) -> None:
    from peft import PeftModel

    registry.add(of_peft(tmp_path / "peft"))
    assert (registry.path("peft") / CONFIG).is_file()
    worn = PeftModel.from_pretrained(tiny("llama", torch.float64), registry.path("peft"), autocast_adapter_dtype=False)
    torch.testing.assert_close(logits(worn.eval()), logits(noisy().model), rtol=0, atol=1e-6)
