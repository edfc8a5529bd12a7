from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from generators.models import embedded as module
from generators.models.embedded import cache_folder, resolve
from generators.models.tokens import load_tokenizer
from rag.core.errors import InputError, ModelError

HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a conversion that only leaves a file behind."""
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_packaged", lambda: Path("packaged.gguf"))
    monkeypatch.setattr(module, "convert", lambda source, target: (target / "config.json").write_text("{}"))
    return tmp_path / "cache"


def test_the_embedded_model_is_converted_once_into_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(resolve("smollm2"))
    assert folder.parent == cache
    assert (folder / "config.json").is_file()

    def never(source: Path, target: Path) -> None:
        raise AssertionError("it was converted again")

    monkeypatch.setattr(module, "convert", never)
    assert resolve("SmolLM2") == resolve(HUB) == str(folder)


def test_two_at_a_time_convert_once(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversions: list[Path] = []
    both_here = threading.Barrier(2)
    packaged = module._packaged

    def find() -> Path | None:
        both_here.wait(10)
        return packaged()

    def convert(source: Path, target: Path) -> None:
        conversions.append(target)
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(module, "_packaged", find)
    monkeypatch.setattr(module, "convert", convert)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(resolve("smollm2"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(conversions) == 1
    assert len(set(found)) == 1
    assert len(found) == 2


def test_a_conversion_that_fails_leaves_nothing_and_can_be_repeated(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(source: Path, target: Path) -> None:
        (target / "model.safetensors").write_text("half")
        raise ModelError("the file is broken")

    with monkeypatch.context() as patch:
        patch.setattr(module, "convert", half)
        with pytest.raises(ModelError, match="broken"):
            resolve("smollm2")
    assert [path for path in cache.iterdir() if path.is_dir()] == []
    assert Path(resolve("smollm2")).is_dir()


def test_a_cache_that_cannot_be_written(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(ModelError, match="GRAFT_CACHE"):
        resolve("smollm2")


def test_without_the_package_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_packaged", lambda: None)
    assert resolve("smollm2") == HUB


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B", "org/some_model.v2"])
def test_a_hub_id_is_left_to_transformers(name: str) -> None:
    assert resolve(name) == name


@pytest.mark.parametrize("name", ["", "./missing", "/missing/model", "~/missing-model", "a/b/c", "a b", "../x", "-x", "x\x00y"])
def test_other_names_say_what_is_allowed(name: str) -> None:
    with pytest.raises(InputError, match=r"'smollm2'.*folder.*Hugging Face"):
        resolve(name)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAFT_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("GRAFT_CACHE")
    assert cache_folder().name == "graft"


@pytest.mark.usefixtures("embedded")
def test_the_converted_tokenizer_is_the_models_own() -> None:
    tokenizer = load_tokenizer("smollm2")
    assert (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token) == ("<|im_end|>", "<|im_start|>", "<|endoftext|>")
    assert tokenizer.tokenize("in  2024") == ["in", "ĠĠ", "2", "0", "2", "4"]  # digits apart, the spaces before them together
    assert tokenizer("<|im_start|>user\nhi<|im_end|>")["input_ids"] == [1, 4093, 198, 6004, 2]  # no bos in front
    assert tokenizer.decode(tokenizer("Ünïcode 你好 😀")["input_ids"]) == "Ünïcode 你好 😀"


def test_weights_of_another_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("gguf")
    config = transformers.LlamaConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", lambda *a, **k: config)
    monkeypatch.setattr("gguf.GGUFReader", lambda path: SimpleNamespace(tensors=[]))
    with pytest.raises(ModelError, match="not the model that was expected"):
        module.convert(tmp_path / "x.gguf", tmp_path)
