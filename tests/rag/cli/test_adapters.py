from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.adapters.lorahub.parts import logits, noisy, saved
from tests.adapters.tiny import tiny
from tests.rag.cli.conftest import Rag


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFT_ADAPTERS", str(tmp_path / "registry"))
    return tmp_path / "registry"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny("llama", torch.float64).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return saved(tmp_path / "chemistry", card={"metrics": {"loss": 1.23456, "steps": 9}})


@pytest.mark.parametrize("command", ["list", "show", "add", "remove", "export"])
def test_help_has_an_example(rag: Rag, command: str) -> None:
    result = rag("adapters", command, "--help")
    assert (result.exit_code, f"Example:  rag adapters {command}" in result.stdout) == (0, True)


def test_an_empty_registry_says_so(rag: Rag) -> None:
    result = rag("adapters", "list")
    assert (result.exit_code, result.stdout, "there are no adapters" in result.stderr) == (0, "", True)
    assert json.loads(rag("adapters", "list", "--json").stdout)["adapters"] == []


def test_add_list_show_remove(rag: Rag, source: Path, base: Path, registry: Path) -> None:
    result = rag("adapters", "add", source, "--base", base)
    assert (result.exit_code, result.stderr) == (0, "added chemistry (LoRA)\n")
    (line,) = rag("adapters", "list").stdout.splitlines()[1:]
    assert line.split()[:2] == ["chemistry", "LoRA"]
    assert "loss 1.235, steps 9" in line
    assert line.split()[-1] == "yes"
    shown = rag("adapters", "show", "chemistry")
    assert f"folder: {registry / 'chemistry'}\nserved by vLLM: yes\n" in shown.stdout
    account = json.loads(rag("adapters", "show", "chemistry", "--json").stdout)
    assert (account["card"]["method"], account["not_servable"]) == ("LoRA", None)
    assert rag("adapters", "remove", "chemistry").exit_code == 0
    assert json.loads(rag("adapters", "list", "--json").stdout)["adapters"] == []


def test_a_folder_of_peft_is_taken_with_what_is_to_know(rag: Rag, tmp_path: Path) -> None:
    noisy(r=24).model.save_pretrained(tmp_path / "peft")
    result = rag("adapters", "add", tmp_path / "peft", "--name", "units")
    assert result.exit_code == 0
    assert "add it with --base MODEL" in result.stderr
    assert "start vLLM with --max-lora-rank 32" in result.stderr
    assert rag("adapters", "list").stdout.split()[-1] == "no"
    assert rag("adapters", "list", "--max-rank", "32").stdout.split()[-1] == "yes"


@pytest.mark.parametrize("form", ["lora", "merged"])
def test_export(rag: Rag, source: Path, base: Path, tmp_path: Path, form: str) -> None:
    rag("adapters", "add", source)
    result = rag("adapters", "export", "chemistry", form, "--out", tmp_path / "out", "--base", base)
    assert (result.exit_code, result.stderr) == (0, f"wrote {tmp_path / 'out'}\n")
    if form == "merged":
        again = type(tiny("llama")).from_pretrained(tmp_path / "out", dtype=torch.float64)
        torch.testing.assert_close(logits(again), logits(noisy().model), rtol=0, atol=1e-6)
    else:
        assert rag("adapters", "add", tmp_path / "out", "--name", "again").exit_code == 0


def test_what_goes_wrong_is_one_line_and_2(rag: Rag, source: Path, tmp_path: Path) -> None:
    rag("adapters", "add", source)
    for arguments, says in (
        (("add", source), "already"),
        (("add", source, "--name", "../x"), "an adapter's name has"),
        (("add", tmp_path / "nowhere"), "is no folder"),
        (("add", source, "--name", "b", "--base", tmp_path / "nowhere"), "there is no model"),
        (("show", "other"), "there are: chemistry"),
        (("remove", "other"), "there is no adapter"),
        (("export", "chemistry", "lora", "--out", tmp_path / "out"), "does not name its base model"),
        (("list", "--max-rank", "24"), "max_rank is one of"),
    ):
        result = rag("adapters", *arguments)
        assert (result.exit_code, says in result.stderr, result.stderr.count("\n")) == (2, True, 1), result.stderr


def test_a_damaged_adapter_does_not_hide_the_others(rag: Rag, source: Path, registry: Path, tmp_path: Path) -> None:
    rag("adapters", "add", source)
    rag("adapters", "add", source, "--name", "broken")
    (registry / "broken" / "graft.json").write_text("{")
    rag("adapters", "add", source, "--name", "bent")
    (registry / "bent" / "adapter_config.json").write_text("{")
    lines = rag("adapters", "list").stdout.splitlines()[1:]
    assert [line.split()[-1] for line in lines] == ["damaged", "damaged", "yes"]
