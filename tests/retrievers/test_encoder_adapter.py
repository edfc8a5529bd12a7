"""An encoder that wears an adapter, on a model of two random layers."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from adapters.registry import Registry
from rag.core.errors import AdapterDamaged, AdapterError, AdapterMismatch, CorpusMismatch, InputError, MissingDependency
from rag.core.registry import configuration
from rag.core.types import Passage
from retrievers.corpus import Corpus
from retrievers.dense import Dense
from retrievers.encoders import SentenceEncoder
from tests.retrievers.tiny_encoder import TEXTS, adapter_folder, encoder_folder

pytest.importorskip("sentence_transformers")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def made(base: Path) -> Path:
    return adapter_folder(base.with_name("made"), base)


@pytest.fixture
def adapter(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy that a test may spoil."""
    monkeypatch.setenv("GRAFT_ADAPTERS", str(tmp_path / "registry"))
    return Path(shutil.copytree(made, tmp_path / "adapter"))


def encoder(base: Path, adapter: object = None) -> SentenceEncoder:
    return SentenceEncoder(str(base), device="cpu", adapter=None if adapter is None else str(adapter))


def trained_side(base: Path, adapter: Path) -> np.ndarray:
    """Vectors as the loss of the training saw them."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    from adapters import load
    from adapters.training.losses import mean_pool

    worn = load(AutoModel.from_pretrained(base).eval(), adapter)
    given = AutoTokenizer.from_pretrained(base)(TEXTS, padding=True, return_tensors="pt")
    inputs = {name: given[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        vectors: np.ndarray = mean_pool(worn.model(**inputs).last_hidden_state, inputs["attention_mask"]).numpy()
    return vectors


@pytest.mark.parametrize("method", ["LoRA", "DoRA", "BitFit", "SerialAdapter", "APrompt", "ChildTuning"])
def test_vectors_are_those_of_the_training(base: Path, tmp_path: Path, method: str) -> None:
    adapter = adapter_folder(tmp_path / "adapter", base, method)
    bare, worn = encoder(base).encode(TEXTS), encoder(base, adapter).encode(TEXTS)
    np.testing.assert_allclose(worn, trained_side(base, adapter), atol=2e-6)
    assert worn.shape == bare.shape
    assert np.abs(worn - bare).max() > 1e-3


def test_the_identity_is_that_of_the_tensors(base: Path, adapter: Path, tmp_path: Path) -> None:
    bare, worn = encoder(base).identity, encoder(base, adapter).identity
    assert worn.startswith(f"{bare} adapter=LoRA sha256=")
    Registry().add(adapter, "finder")
    copied = shutil.copytree(adapter, tmp_path / "elsewhere")
    assert encoder(base, "finder").identity == encoder(base, copied).identity == worn
    other = adapter_folder(tmp_path / "other", base, seed=1)
    assert encoder(base, other).identity != worn
    assert configuration(encoder(base, adapter))["adapter"] == str(adapter)
    np.testing.assert_array_equal(encoder(base, "finder").encode(TEXTS), encoder(base, adapter).encode(TEXTS))


def test_a_corpus_remembers_the_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", encoder=encoder(base, adapter))
    corpus.add_passages([Passage(text, text) for text in TEXTS])
    corpus.close()
    again = Corpus.open(tmp_path / "corpus")
    assert "adapter=LoRA" in again.info()["encoder"]
    for hits in Dense(again, k=1).search_batch(TEXTS):
        assert hits[0].score == pytest.approx(1, abs=1e-5)
    with pytest.raises(CorpusMismatch, match=r"adapter=LoRA.*their results do not mix.*index again"):
        Corpus.open(tmp_path / "corpus", encoder=encoder(base))
    with pytest.raises(CorpusMismatch):
        Dense(again, encoder=encoder(base)).search("w1")


def test_a_corpus_of_the_bare_encoder_refuses_one_with_an_adapter(base: Path, adapter: Path, tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", encoder=encoder(base))
    corpus.add_passages([Passage(text, text) for text in TEXTS])
    with pytest.raises(CorpusMismatch, match="do not mix"):
        Corpus.open(tmp_path / "corpus", encoder=encoder(base, adapter))
    with pytest.raises(CorpusMismatch, match="do not mix"):
        Dense(corpus, encoder=encoder(base, adapter)).search("w1")


def test_a_corpus_whose_adapter_is_gone_or_another(base: Path, adapter: Path, tmp_path: Path) -> None:
    Corpus.create(tmp_path / "corpus", encoder=encoder(base, adapter)).add_passages([Passage("1", "w1")])
    shutil.rmtree(adapter)
    with pytest.raises(AdapterError, match=r"adapter' is not there.*has: none; put it back"):
        Dense(Corpus.open(tmp_path / "corpus")).search("w1")
    adapter_folder(adapter, base, seed=1)
    with pytest.raises(CorpusMismatch, match=r"was built with.*index again"):
        Dense(Corpus.open(tmp_path / "corpus")).search("w1")


def test_a_damaged_adapter(base: Path, adapter: Path) -> None:
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(AdapterDamaged, match="adapter_model"):
        _ = encoder(base, adapter).identity
    (adapter / "graft.json").unlink()
    with pytest.raises(AdapterError, match=r"graft.json is missing"):
        encoder(base, adapter).encode(["w1"])


def test_an_adapter_that_changes_before_it_is_worn(base: Path, adapter: Path) -> None:
    worn = encoder(base, adapter)
    before = worn.identity
    shutil.rmtree(adapter)
    adapter_folder(adapter, base, seed=1)
    with pytest.raises(AdapterMismatch, match="changed after it was first looked at"):
        worn.encode(["w1"])
    assert encoder(base, adapter).identity != before


def test_an_adapter_of_another_model(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterMismatch, match="not for this model"):
        encoder(encoder_folder(tmp_path / "other", seed=5), adapter).encode(["w1"])


def test_an_encoder_that_pools_otherwise(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterMismatch, match=r"mean over tokens.*pooling 'cls'"):
        encoder(encoder_folder(tmp_path / "cls", pooling="cls_token"), adapter).encode(["w1"])


def test_an_unknown_name_lists_what_there_is(base: Path, adapter: Path) -> None:
    Registry().add(adapter, "finder")
    with pytest.raises(AdapterError, match=r"'fnider' is not there.*has: finder"):
        encoder(base, "fnider").encode(["w1"])
    with pytest.raises(InputError, match="adapter is the folder"):
        encoder(base, "")


def test_a_missing_package_names_the_extra(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[.*adapters\]"):
        encoder(base, adapter).encode(["w1"])


def test_many_threads_put_it_on_once(base: Path, adapter: Path) -> None:
    worn = encoder(base, adapter)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: worn.encode(TEXTS), range(16)))
    for vectors in found:
        np.testing.assert_array_equal(vectors, found[0])
    np.testing.assert_allclose(found[0], trained_side(base, adapter), atol=2e-6)
