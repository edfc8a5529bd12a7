"""The parts of the encoder that need no model; the model itself is tried by the tests of the whole pipeline."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.core.errors import InputError, MissingDependency, ModelError, ModelUnavailable
from rag.core.protocols import Encoder
from rag.core.registry import configuration, registered
from retrievers.encoders import SentenceEncoder


class FakeModel:
    """Takes the place of a loaded model and notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.max_seq_length = 256

    def encode(self, texts: list[str], **options: Any) -> np.ndarray:
        assert options["normalize_embeddings"]
        assert options["convert_to_numpy"]
        self.calls.append(texts)
        return np.array([[len(text), 1.0] for text in texts])

    def get_embedding_dimension(self) -> int:
        return 2


def loaded(encoder: SentenceEncoder) -> FakeModel:
    encoder._loaded = FakeModel()
    return encoder._loaded


def model_folder(path: Path, weights: bytes = b"weights") -> Path:
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def test_prefixes_go_in_front() -> None:
    encoder = SentenceEncoder(query_prefix="query: ", passage_prefix="passage: ")
    model = loaded(encoder)
    vectors = encoder.encode(["a", "b"], "query")
    encoder.encode(["c"])
    assert model.calls == [["query: a", "query: b"], ["passage: c"]]
    assert (vectors.dtype, vectors.shape) == (np.float32, (2, 2))
    assert encoder.encode([]).shape == (0, 2)
    assert isinstance(encoder, Encoder)


def test_concurrent_calls_share_batches_of_one_kind() -> None:
    encoder = SentenceEncoder(query_prefix="q ")
    model = loaded(encoder)

    async def gather() -> list[np.ndarray]:
        queries = [encoder.aencode("x" * i, "query") for i in range(1, 20)]
        return await asyncio.gather(*queries, encoder.aencode("passage"))

    vectors = asyncio.run(gather())
    assert [vector[0] for vector in vectors] == [*range(3, 22), 7]
    assert len(model.calls) < 20
    assert all(len({text.startswith("q ") for text in call}) == 1 for call in model.calls)


def test_identity_follows_the_weights_and_the_settings(tmp_path: Path) -> None:
    one, other = model_folder(tmp_path / "one"), model_folder(tmp_path / "other", b"other weights")
    (tmp_path / "copies").mkdir()
    copy = model_folder(tmp_path / "copies" / "one")
    identities = [
        SentenceEncoder(str(one)).identity,
        SentenceEncoder(str(other)).identity,
        SentenceEncoder(str(one), query_prefix="q: ").identity,
        SentenceEncoder(str(one), max_tokens=64).identity,
    ]
    assert len(set(identities)) == 4
    assert SentenceEncoder(str(copy), batch_size=1).identity == identities[0]
    assert str(tmp_path) not in identities[0]


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no model"):
        _ = SentenceEncoder(str(tmp_path)).identity


def test_a_model_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")

    def refuse(*_: Any, **__: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelUnavailable, match=r"nobody/nothing.*no network.*minilm"):
        SentenceEncoder("nobody/nothing").encode(["x"])


def test_a_missing_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingDependency, match=r"graft-rag\[cpu\]"):
        SentenceEncoder(str(model_folder(tmp_path / "m"))).encode(["x"])


@pytest.mark.parametrize("arguments", [{"model": ""}, {"batch_size": 0}, {"max_tokens": 0}])
def test_bad_settings(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        SentenceEncoder(**arguments)


def test_only_lists_of_strings_are_encoded() -> None:
    encoder = SentenceEncoder()
    loaded(encoder)
    for texts in ("text", [1], [None]):
        with pytest.raises(InputError, match="list of strings"):
            encoder.encode(texts)  # type: ignore[arg-type]


def test_configuration_reads_back() -> None:
    assert registered("SentenceEncoder") is SentenceEncoder
    assert configuration(SentenceEncoder(query_prefix="q: ")) == {"query_prefix": "q: "}
