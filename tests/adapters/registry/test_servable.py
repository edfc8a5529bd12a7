from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from adapters import adapt
from adapters.folder import CARD, CONFIG, HEAD
from adapters.methods import build
from adapters.registry import servable
from rag.core.errors import AdapterDamaged, InputError
from tests.adapters.lorahub.parts import saved
from tests.adapters.tiny import tiny


def changed(folder: Path, file: str, **changes: Any) -> Path:
    (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))
    return folder


def test_plain_lora_is_served(tmp_path: Path) -> None:
    assert servable(saved(tmp_path / "plain", rank_stabilised=True)) is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"use_dora": True}, "vLLM refuses DoRA"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"modules_to_save": ["score", "lm_head"]}, r"modules_to_save \(lm_head\)"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "encoder-decoder"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa'; convert it"),
        ({"lora_bias": True}, "vLLM refuses lora_bias"),
        ({"layer_replication": [[0, 2]]}, "vLLM refuses layer_replication"),
        ({"r": 17}, "start vLLM with --max-lora-rank 32"),
        ({"r": 300}, "start vLLM with --max-lora-rank 320"),
        ({"r": 513}, "rank 513 is above 512"),
        ({"rank_pattern": {"q_proj": 65}}, "--max-lora-rank 128"),
    ],
)
def test_what_vllm_refuses_has_a_reason(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    reason = servable(changed(saved(tmp_path / "lora"), CONFIG, **changes))
    assert reason is not None
    assert re.search(says, reason)


def test_the_servers_rank_counts(tmp_path: Path) -> None:
    folder = changed(saved(tmp_path / "lora"), CONFIG, r=64)
    assert servable(folder, 64) is None
    assert servable(folder, 32) is not None
    with pytest.raises(InputError, match="max_rank is one of 1, 8, 16"):
        servable(folder, 24)


def test_a_head_would_be_left_out(tmp_path: Path) -> None:
    adapted = adapt(tiny("bert"), build("LoRA", {"r": 2}))
    adapted.save(tmp_path / "bert")
    assert (tmp_path / "bert" / HEAD).is_file()
    assert "would leave its head out" in (servable(tmp_path / "bert") or "")


def test_an_encoder_decoder_is_known_by_its_layers(tmp_path: Path) -> None:
    assert "encoder-decoder" in (servable(saved(tmp_path / "t5", "t5")) or "")


def test_other_methods_say_what_they_can_be_written_as(tmp_path: Path) -> None:
    folder = changed(saved(tmp_path / "own"), CONFIG, peft_type="FISH_MASK")
    changed(folder, CARD, method="FishMask", exports=None)
    assert "if the method has that form" in (servable(folder) or "")
    changed(folder, CARD, exports=["merged"])
    assert servable(folder) == "FishMask is no plain LoRA; write it as a model: rag adapters export NAME merged"
    changed(folder, CARD, exports=[])
    assert servable(folder) == "FishMask is no plain LoRA; it is worn in process only"


def test_a_configuration_that_cannot_be_read(tmp_path: Path) -> None:
    folder = saved(tmp_path / "lora")
    changed(folder, CONFIG, r="many")
    with pytest.raises(AdapterDamaged, match="whole numbers"):
        servable(folder)
    (folder / CONFIG).write_text("[]")
    with pytest.raises(AdapterDamaged, match="no JSON object"):
        servable(folder)
