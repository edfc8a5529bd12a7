"""Adapters of the registry on a running vLLM server, which is a script here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adapters import adapt
from adapters.methods import build
from tests.adapters.lorahub.parts import logits, noisy, saved
from tests.adapters.tiny import tiny
from tests.generators.models.lora_server import LoraServer, on_network
from tests.rag.cli.conftest import Rag

URL = "http://models.example:8000/v1"


@pytest.fixture(autouse=True)
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRAFT_ADAPTERS", str(tmp_path / "registry"))
    return tmp_path / "registry"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> LoraServer:
    """Takes the place of the network."""
    script = LoraServer()
    on_network(script, monkeypatch)
    return script


@pytest.fixture
def add(rag: Rag, tmp_path: Path) -> Callable[..., None]:
    def added(name: str, method: str = "LoRA", **options: Any) -> None:
        if method == "LoRA":
            saved(tmp_path / name, **options)
        else:
            adapted = adapt(tiny("llama", torch.float64), build(method, options), head=())
            with torch.no_grad():
                for parameter in adapted.worn.trained().values():
                    parameter.copy_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
            adapted.save(tmp_path / name)
        assert rag("adapters", "add", tmp_path / name).exit_code == 0

    return added


@pytest.mark.parametrize("command", ["load", "unload", "served"])
def test_help_has_an_example(rag: Rag, command: str) -> None:
    result = rag("adapters", command, "--help")
    assert (result.exit_code, f"Example:  rag adapters {command}" in result.stdout) == (0, True)


def test_load_served_unload(rag: Rag, server: LoraServer, add: Callable[..., None], registry: Path) -> None:
    add("chemistry")
    assert "has no adapter loaded" in rag("adapters", "served", "--url", URL).stderr
    result = rag("adapters", "load", "chemistry", "--url", URL)
    assert (result.exit_code, result.stderr) == (0, f"loaded: chemistry; ask {URL} for the model 'chemistry'\n")
    (folder,) = server.loaded.values()
    assert Path(folder).parent == registry / ".served"
    assert rag("adapters", "served", "--url", URL).stdout == f"chemistry\t{folder}\n"
    assert json.loads(rag("adapters", "served", "--url", URL, "--json").stdout)["adapters"] == {"chemistry": folder}
    assert "was loaded already" in rag("adapters", "load", "chemistry", "--url", URL).stderr
    assert server.loads == ["chemistry"]
    assert rag("adapters", "unload", "chemistry", "--url", URL).stderr == "unloaded chemistry\n"
    assert server.loaded == {}
    assert [line.split()[0] for line in rag("adapters", "list").stdout.splitlines()[1:]] == ["chemistry"]


def test_adalora_is_written_as_plain_lora_on_the_way(rag: Rag, server: LoraServer, add: Callable[..., None], tmp_path: Path) -> None:
    add("spread", "AdaLoRA", init_r=4, target_r=2)
    result = rag("adapters", "load", "spread", "--url", URL)
    assert (result.exit_code, "does not name its base model" in result.stderr, server.loads) == (2, True, [])
    tiny("llama", torch.float64).save_pretrained(tmp_path / "base")
    account = json.loads(rag("adapters", "load", "spread", "--url", URL, "--base", tmp_path / "base", "--json").stdout)
    assert (account["exported"], account["was_loaded"]) == (True, False)
    assert json.loads((Path(account["folder"]) / "adapter_config.json").read_text())["peft_type"] == "LORA"
    from adapters import load

    as_trained = logits(load(tiny("llama", torch.float64), tmp_path / "spread").model)
    torch.testing.assert_close(logits(load(tiny("llama", torch.float64), account["folder"]).model), as_trained, rtol=0, atol=1e-6)
    assert not torch.allclose(logits(tiny("llama", torch.float64)), as_trained, atol=1e-3)
    again = rag("adapters", "load", "spread", "--url", URL)  # the copy is there, so the base model is not needed
    assert (again.exit_code, "was loaded already" in again.stderr) == (0, True)


def test_what_vllm_would_refuse_is_refused_before_it_is_sent(rag: Rag, server: LoraServer, add: Callable[..., None]) -> None:
    add("deep", r=24)
    add("dora", "DoRA", r=2)
    add("bits", "SerialAdapter", bottleneck=2)
    add("chemistry")
    for arguments, says in (
        (("deep",), "its rank 24 is above the server's 16; start vLLM with --max-lora-rank 32"),
        (("dora",), "vLLM refuses DoRA (use_dora); write it as plain LoRA: rag adapters export dora lora"),
        (("bits",), "SerialAdapter is no plain LoRA; it is worn in process only"),
        (("chemistry", "--target", "up_proj"), "leave that out without a word"),
        (("nobody",), "there is no adapter 'nobody'"),
    ):
        result = rag("adapters", "load", *arguments, "--url", URL)
        assert (result.exit_code, says in result.stderr, result.stderr.count("\n")) == (2, True, 1), result.stderr
    assert server.loads == []
    assert rag("adapters", "load", "deep", "--url", URL, "--max-rank", "32").exit_code == 0


def test_an_adapter_that_was_replaced_is_not_mixed_up_with_the_old_one(
    rag: Rag, server: LoraServer, add: Callable[..., None], tmp_path: Path
) -> None:
    add("chemistry")
    rag("adapters", "load", "chemistry", "--url", URL)
    old = server.loaded["chemistry"]
    noisy(seed=2).save(tmp_path / "new")
    rag("adapters", "add", tmp_path / "new", "--name", "chemistry", "--replace")
    result = rag("adapters", "load", "chemistry", "--url", URL)
    assert (result.exit_code, f"another 'chemistry' already, from {old}" in result.stderr) == (2, True)
    assert "rag adapters unload chemistry" in result.stderr
    assert rag("adapters", "unload", "chemistry", "--url", URL).exit_code == 0
    assert rag("adapters", "load", "chemistry", "--url", URL).exit_code == 0
    assert server.loaded["chemistry"] != old


def test_unloading_what_is_not_there(rag: Rag, server: LoraServer) -> None:
    result = rag("adapters", "unload", "nobody", "--url", URL)
    assert (result.exit_code, "The lora adapter 'nobody' cannot be found" in result.stderr) == (2, True)
