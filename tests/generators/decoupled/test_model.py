from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.decoupled.model import EncoderDecoder, is_encoder_decoder  # noqa: E402
from rag.core.errors import InputError, MissingCapability, ModelError  # noqa: E402
from tests.generators.decoupled import tiny  # noqa: E402
from tests.generators.models.conftest import tiny_folder  # noqa: E402, F401


def test_it_is_saved_and_loaded_whole_without_pickle(tmp_path: Path) -> None:
    made = tiny.model()
    made.save(tmp_path / "model")
    loaded = EncoderDecoder.load(str(tmp_path / "model"), device="cpu")
    assert loaded.identity == made.identity
    assert (loaded.window, loaded.start, loaded.separator, loaded.end) == (tiny.WINDOW, 0, 2, 1)
    assert not loaded.model.training
    assert {file.suffix for file in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    assert is_encoder_decoder(str(tmp_path / "model"))
    assert torch.equal(tiny.answered(loaded, [made.encode((9, 8))]), tiny.answered(made, [made.encode((9, 8))]))


def test_names_of_special_tokens_are_text() -> None:
    made = tiny.model()
    found = made.ids("a</s>b<sep>c<pad>")
    assert not {0, 1, 2} & set(found)
    assert made.tokenizer.decode(found) == "a</s>b<sep>c<pad>"
    with pytest.raises(InputError, match="makes no token"):
        made.ids("")


def test_other_models_are_refused(tiny_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(MissingCapability, match="is a 'llama', not a T5"):
        EncoderDecoder.load(str(tiny_folder))
    assert not is_encoder_decoder(str(tiny_folder))
    assert not is_encoder_decoder("smollm2")
    made = tiny.model()
    made.tokenizer.sep_token = None
    with pytest.raises(ModelError, match="no separator"):
        EncoderDecoder(made.model, made.tokenizer, "it")
    made.save(tmp_path / "model")
    with pytest.raises(ModelError, match="no separator"):
        EncoderDecoder.load(str(tmp_path / "model"), device="cpu")


def test_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="dtype is one of"):
        EncoderDecoder.load(str(tmp_path), dtype="int8")
    tiny.model().save(tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-200])
    with pytest.raises(ModelError, match="cannot load the model"):
        EncoderDecoder.load(str(tmp_path / "model"), device="cpu")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text(json.dumps(["t5"]))
    assert not is_encoder_decoder(str(tmp_path / "odd"))
