"""What a vLLM server would refuse, or wear in part without a word, is not sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from safetensors.torch import load_file, save_file  # noqa: E402

from generators.models.rack import Rack  # noqa: E402
from generators.models.served_adapter import KEPT, check, lasting_copy  # noqa: E402
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch  # noqa: E402
from tests.adapters.lorahub.parts import saved  # noqa: E402
from tests.adapters.tiny import tiny  # noqa: E402
from tests.generators.models import lora_server  # noqa: E402
from tests.generators.models.lora_server import LoraServer, model  # noqa: E402


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "chemistry", r=4)


def change(folder: Path, **settings: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def test_what_is_servable_passes(folder: Path, tmp_path: Path) -> None:
    check(folder)
    tiny("llama").save_pretrained(tmp_path / "base")
    check(folder, 8, ("q_proj", "k_proj", "v_proj"), str(tmp_path / "base"))
    check(folder, root="meta/some-model-on-a-hub")


def test_gpt2_keeps_its_layers_the_other_way_round(tmp_path: Path) -> None:
    folder = saved(tmp_path / "poems", on="gpt2", targets="all")
    tiny("gpt2").save_pretrained(tmp_path / "base")
    check(folder, root=str(tmp_path / "base"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"use_dora": True}, "vLLM refuses DoRA.* rag adapters export chemistry lora"),
        ({"bias": "all"}, "trained biases"),
        ({"r": 24}, r"rank 24 is above the server's 16; start vLLM with --max-lora-rank 32"),
    ],
)
def test_what_vllm_refuses_is_refused_before(folder: Path, settings: dict[str, Any], says: str) -> None:
    change(folder, **settings)
    with pytest.raises(AdapterError, match=says):
        check(folder)


def test_layers_that_the_server_leaves_out_are_named(folder: Path) -> None:
    with pytest.raises(AdapterError, match=r"changes 'model\.layers\.0\.self_attn\..*leave that out without a word.* are up_proj"):
        check(folder, targets=("up_proj",))


def test_another_base_model_is_found_by_its_layers(folder: Path, tmp_path: Path) -> None:
    import transformers

    def base(name: str, **changes: int) -> str:
        sizes = {"vocab_size": 100, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, **changes}
        transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes)).save_pretrained(tmp_path / name)  # type: ignore[arg-type]
        return str(tmp_path / name)

    with pytest.raises(AdapterMismatch, match=r"has no layer 'model\.layers\.1"):
        check(folder, root=base("shallow", num_hidden_layers=1))
    with pytest.raises(AdapterMismatch, match=r"maps 32 values to \d+ there, and is \[64, 64\] in the served one"):
        check(folder, root=base("wide", hidden_size=64))


def test_weights_that_are_missing_damaged_or_none(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({"unknown": next(iter(tensors.values()))}, file)
    with pytest.raises(AdapterDamaged, match="holds no LoRA"):
        check(folder)
    file.write_bytes(b"\x80\x04pickle")
    with pytest.raises(AdapterDamaged, match="cannot be read as safetensors"):
        check(folder)
    file.rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterDamaged, match="a pickle may run code"):
        check(folder)
    with pytest.raises(AdapterDamaged, match=r"adapter_model\.safetensors cannot be read"):
        lasting_copy(folder)


def test_a_copy_lasts_and_has_a_place_of_its_own_for_other_weights(folder: Path) -> None:
    copy = lasting_copy(folder)
    assert copy.parent == folder.resolve().parent / KEPT
    assert sorted(file.name for file in copy.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    weights = (copy / "adapter_model.safetensors").read_bytes()
    assert lasting_copy(folder) == copy
    saved(folder, seed=2, r=4)
    other = lasting_copy(folder)
    assert other != copy
    assert (copy / "adapter_model.safetensors").read_bytes() == weights != (other / "adapter_model.safetensors").read_bytes()
    assert not [path for path in copy.parent.iterdir() if path.name.startswith(".")]


def test_a_place_that_cannot_be_written_is_named(folder: Path) -> None:
    (folder.parent / KEPT).write_text("in the way")
    with pytest.raises(AdapterError, match=r"\.served/chemistry-[0-9a-f]{16}: what the server shall read cannot be written"):
        lasting_copy(folder)


def test_the_model_sends_nothing_that_would_be_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = LoraServer()
    worn = model(server).load_adapter("chemistry", folder)
    assert (worn.name, server.loaded) == ("chemistry", {"chemistry": str(folder)})
    with pytest.raises(AdapterError, match="above the server's 1"):
        model(server).load_adapter("again", folder, max_rank=1)
    tiny("gpt2").save_pretrained(tmp_path / "base")
    monkeypatch.setattr(lora_server, "ROOT", str(tmp_path / "base"))
    model(server).load_adapter("unknown", folder)  # that file names its layers otherwise, so it cannot be told
    assert server.loads == ["chemistry", "unknown"]


def test_a_rack_serves_copies(folder: Path) -> None:
    server = LoraServer()
    rack = Rack(model(server), 1, folders={"a": folder, "b": "/on/the/server"})
    assert rack.wearing("a").generate("hello").text == "a"
    assert server.loaded == {"a": str(lasting_copy(folder))}
    assert rack.wearing("b").generate("hello").text == "b"
    assert server.loaded == {"b": "/on/the/server"}
    change(folder, use_dora=True)
    with pytest.raises(AdapterError, match="DoRA"):
        rack.wearing("a").generate("hello")


def test_a_head_beside_the_lora_is_not_left_out(folder: Path) -> None:
    save_file({"weight": torch.zeros(2)}, folder / "head.safetensors")
    with pytest.raises(AdapterError, match="leave its head out"):
        Rack(model(LoraServer()), 1, folders={"a": folder}).wearing("a").generate("hello")
