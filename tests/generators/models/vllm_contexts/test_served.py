from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.models.stitched.decoder import load  # noqa: E402
from generators.models.vllm_contexts.served import served_model  # noqa: E402
from rag.core.errors import ConfigError, CorpusMismatch  # noqa: E402


def changed(folder: Path, to: Path, **config: object) -> Path:
    shutil.copytree(folder, to)
    held = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(held | config))
    return to


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_tells_the_identity_that_the_loaded_model_has(tiny_folder: Path, dtype: str) -> None:
    served, loaded = served_model(str(tiny_folder)), load(str(tiny_folder), dtype=dtype, device="cpu")
    assert replace(served.identity, rotary=loaded.identity.rotary) == loaded.identity
    rotary = served.rotary_of(replace(loaded.identity, adapter="a" * 64), tiny_folder)
    assert rotary.identity == loaded.rotary.identity
    keys = torch.randn(2, 5, loaded.head_dim)
    assert torch.equal(rotary.rotate(keys, torch.arange(3, 8)), loaded.rotary.rotate(keys, torch.arange(3, 8)))


def test_scaled_frequencies_are_told_too(tiny_folder: Path, tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 24}
    folder = changed(tiny_folder, tmp_path / "yarn", rope_parameters=yarn)
    loaded = load(str(folder), device="cpu")
    assert served_model(str(folder)).rotary_of(loaded.identity, folder).frequencies.factor == loaded.rotary.frequencies.factor != 1
    with pytest.raises(CorpusMismatch, match="other rotary positions"):
        served_model(str(tiny_folder)).rotary_of(loaded.identity, folder)


def test_another_model_is_told_apart(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    identity = load(str(tiny_folder), device="cpu").identity
    other = changed(tiny_folder, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(CorpusMismatch, match="weights"):
        served_model(str(other)).rotary_of(identity, other)
    save_file({name: tensor for name, tensor in tensors.items() if "norm" not in name}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match="have no model"):
        served_model(str(other))


def test_a_model_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not on this machine"):
        served_model("nobody/has-this-model")
    with pytest.raises(ConfigError, match="cannot be read"):
        served_model(str(tmp_path))
