from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.decoupled.encoder import DecoupledEncoder  # noqa: E402
from rag.core.errors import InputError, PromptTooLong  # noqa: E402
from retrievers.context.build import ContextEncoder, Tokenises  # noqa: E402
from tests.generators.decoupled import tiny  # noqa: E402
from tests.generators.decoupled.tiny import TEXTS  # noqa: E402


def test_it_is_what_a_build_takes(tmp_path: Path) -> None:
    tiny.model().save(tmp_path / "model")
    encoder = DecoupledEncoder(str(tmp_path / "model"), device="cpu")
    assert encoder._loaded is None
    assert isinstance(encoder, ContextEncoder)
    assert isinstance(encoder, Tokenises)
    assert encoder.identity == tiny.model().identity
    assert [one.tokens for one in encoder.encode(TEXTS)] == encoder.tokenised(TEXTS)


def test_results_hold_no_more_than_they_show() -> None:
    (found,) = DecoupledEncoder.over(tiny.model()).encode(TEXTS[:1])
    for part in (found.keys, found.values):
        assert part.device.type == "cpu"
        assert not part.requires_grad
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()


def test_texts_that_cannot_be_encoded() -> None:
    encoder = DecoupledEncoder.over(tiny.model())
    with pytest.raises(PromptTooLong, match=r"text 1 takes .* at most 96"):
        encoder.encode(["the cat", "the cat " * 60])
    with pytest.raises(InputError, match="no token"):
        encoder.encode(["the cat", ""])
    with pytest.raises(InputError, match="dtype"):
        DecoupledEncoder("folder", "float8")
    assert encoder.encode([]) == []
