from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from adapters.folder import CARD, CONFIG, WEIGHTS
from adapters.registry import Registry
from adapters.registry.lora_folder import inspect, read
from rag.core.errors import AdapterDamaged, AdapterError
from tests.adapters.lorahub.parts import saved

Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LoRA without a card, as PEFT writes it."""
    made = saved(tmp_path / "peft", targets=("q_proj", "v_proj"))
    (made / CARD).unlink()
    config = json.loads((made / CONFIG).read_text())
    (made / CONFIG).write_text(json.dumps({**config, "target_modules": ["q_proj", "v_proj"]}))
    return made


def configured(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


def rewritten(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


def test_it_is_described_without_its_tensors(folder: Path) -> None:
    found = inspect(folder)
    assert (found.r, found.alpha, found.rank_stabilised, found.plain) == (2, 4.0, False, True)
    assert found.shapes["model.layers.0.self_attn.v_proj"] == ((2, 32), (16, 2))
    assert len(found.shapes) == 4
    again, state = read(folder)
    assert (again, len(state)) == (found, 8)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peft_type": "IA3"}, "its method is 'IA3'"),
        ({"r": 0}, "r is a whole number from 1, not 0"),
        ({"r": "2"}, "r is a whole number"),
        ({"r": 3}, r"shape \[2, 32\], not \[3, in\]: r is 3"),
        ({"lora_alpha": None}, "lora_alpha and lora_dropout are numbers"),
        ({"rank_pattern": {"q_proj": 4}}, "'rank_pattern' is set"),
        ({"alpha_pattern": {"q_proj": 4}}, "'alpha_pattern' is set"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save' is set"),
        ({"init_lora_weights": "pissa"}, "changes the base model's weights"),
        ({"target_modules": ["q_proj"]}, r"layers that no target names: model\.layers\.0\.self_attn\.v_proj"),
        ({"target_modules": ["q_proj", "v_proj", "o_proj"]}, "targets without a layer: o_proj"),
        ({"target_modules": None}, "is a list of names or a pattern"),
    ],
)
def test_a_configuration_that_the_tensors_do_not_bear_out(folder: Path, changes: dict[str, Any], says: str) -> None:
    configured(folder, **changes)
    with pytest.raises(AdapterError, match=says) as caught:
        inspect(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda state: state.pop(f"{Q0}.lora_A.weight"), "only one of lora_A and lora_B"),
        (lambda state: state.update({f"{Q0}.lora_B.weight": torch.zeros(32, 3)}), r"not \[out, 2\]"),
        (lambda state: state.update({f"{Q0}.lora_A.weight": torch.zeros(2)}), r"the shape \[2\]"),
        (lambda state: state.update({"evil": torch.zeros(2)}), "'evil' is no tensor of LoRA"),
        (lambda state: state.update({f"{Q0}.bias": torch.zeros(2)}), "is no tensor of LoRA"),
        (lambda state: state.update({f"{Q0}.lora_magnitude_vector": torch.zeros(2)}), "is no tensor of LoRA"),
        (lambda state: state.clear(), "holds no LoRA"),
    ],
)
def test_tensors_that_the_configuration_does_not_bear_out(folder: Path, change: Any, says: str) -> None:
    rewritten(folder, change)
    with pytest.raises(AdapterError, match=says):
        inspect(folder)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x08", b"\xff" * 8 + b"{}", (2).to_bytes(8, "little") + b"[]", (10**6).to_bytes(8, "little") + b"{}"],
    ids=["empty", "short", "huge header", "no object", "header past the end"],
)
def test_a_header_that_lies_is_refused(folder: Path, data: bytes) -> None:
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(AdapterDamaged, match="cannot be read as safetensors"):
        inspect(folder)


def test_a_header_that_names_more_than_there_is_is_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(AdapterDamaged, match="cannot be read as safetensors"):
        inspect(folder)


def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"adapter_model\.bin is a pickle, which may run code"):
        Registry(tmp_path / "registry").add(folder)
    (folder / "adapter_model.bin").rename(folder / WEIGHTS)
    (folder / "training_args.bin").write_bytes(b"a pickle that is not looked at")
    entry = Registry(tmp_path / "registry").add(folder)
    assert not (entry.folder / "training_args.bin").exists()


def test_a_dora_of_peft_is_taken_as_dora(folder: Path, tmp_path: Path) -> None:
    configured(folder, use_dora=True)
    rewritten(folder, lambda state: state.update({f"{Q0}.lora_magnitude_vector": torch.ones(32)}))
    assert not inspect(folder).plain
    assert Registry(tmp_path / "registry").add(folder).method == "DoRA"


def test_trained_biases_are_noted(folder: Path, tmp_path: Path) -> None:
    configured(folder, bias="lora_only")
    registry = Registry(tmp_path / "registry")
    registry.add(folder, "biased")
    assert "bias is 'lora_only'" in registry.show("biased")[1]["note"]
