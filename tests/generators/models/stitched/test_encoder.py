from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from generators.models.stitched.encoder import LocalEncoder
from rag.core.errors import InputError, PromptTooLong
from tests.generators.models.stitched.conftest import WINDOW, tokens

TEXTS = ["the cat sat on the mat", "a", "Paris is the capital of France and the dog ran to the cat", "北京是中国的首都", "the dog"]


@pytest.mark.parametrize("batch_tokens", [1, 30, 2048])
def test_a_batch_gives_what_each_text_gives_alone(one, batch_tokens):
    together = LocalEncoder.over(one, batch_tokens).encode(TEXTS)
    for text, found in zip(TEXTS, together, strict=True):
        (alone,) = LocalEncoder.over(one).encode([text])
        assert found.tokens == alone.tokens
        assert found.keys.shape == found.values.shape == (3, 2, len(found.tokens), 8)
        assert float((found.keys - alone.keys).abs().max()) <= 1e-12
        assert float((found.values - alone.values).abs().max()) <= 1e-12


def test_padding_is_masked_and_batches_keep_to_their_bound(one):
    shapes, raw = [], one.raw
    one.raw = lambda ids, mask: (shapes.append((tuple(ids.shape), int(mask.sum()))), raw(ids, mask))[1]
    lengths = [3, 20, 4, 19, 21, 5]
    LocalEncoder.over(one, 45).encode_tokens([tokens(n, n) for n in lengths])
    assert sum(real for _, real in shapes) == sum(lengths)
    assert all(rows * longest <= 45 for (rows, longest), _ in shapes)
    assert len(shapes) < len(lengths)


def test_keys_are_raw(one):
    """A token's key at the first layer is the same wherever in the passage it stands."""
    (found,) = LocalEncoder.over(one).encode_tokens([[9, 8, 9, 7, 9]])
    assert torch.allclose(found.keys[0][:, 0], found.keys[0][:, 4], atol=1e-12)
    assert torch.allclose(found.keys[0][:, 0], found.keys[0][:, 2], atol=1e-12)
    assert not torch.allclose(found.keys[1][:, 0], found.keys[1][:, 4], atol=1e-3)


def test_no_special_tokens_are_added(one, tokenizer):
    tokenizer_that_begins = one.tokenizer
    (found,) = LocalEncoder.over(one).encode(["the cat"])
    assert found.tokens == tuple(tokenizer_that_begins("the cat", add_special_tokens=False)["input_ids"])
    assert not set(found.tokens) & set(tokenizer.all_special_ids)
    assert LocalEncoder.over(one).tokenised(["the cat"]) == [found.tokens]


def test_results_live_on_the_cpu_and_hold_no_more_than_they_show(encoder):
    first, _ = encoder.encode(TEXTS[:2])
    for part in (first.keys, first.values):
        assert part.device.type == "cpu"
        assert not part.requires_grad
        assert part.untyped_storage().nbytes() == part.numel() * part.element_size()  # no view of a padded batch


@pytest.mark.parametrize(
    ("sequences", "error", "said"),
    [
        ([[1], []], InputError, "text 1 must have tokens"),
        ([[1, 300]], InputError, "from 0 to 299"),
        ([[-1]], InputError, "text 0"),
        ([[1], [2] * (WINDOW + 1)], PromptTooLong, f"text 1 takes {WINDOW + 1} tokens"),
    ],
)
def test_bad_tokens_are_errors_before_anything_runs(encoder, sequences, error, said):
    with pytest.raises(error, match=said):
        encoder.encode_tokens(sequences)


def test_a_text_without_tokens_is_an_error(encoder):
    with pytest.raises(InputError, match="no token"):
        encoder.encode(["the cat", ""])
    assert encoder.encode([]) == []


def test_bad_settings_are_refused_before_the_model_loads():
    with pytest.raises(InputError, match="batch_tokens"):
        LocalEncoder(batch_tokens=0)
    with pytest.raises(InputError, match="float64"):
        LocalEncoder(dtype="float8")


def test_threads_do_not_mix_their_keys(tiny_folder):
    encoder = LocalEncoder(str(tiny_folder), device="cpu")
    expected = [encoder.encode([text])[0] for text in TEXTS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: encoder.encode([text])[0], TEXTS * 6))
    for one, other in zip(found, expected * 6, strict=True):
        assert torch.allclose(one.keys, other.keys, atol=1e-5)
        assert torch.allclose(one.values, other.values, atol=1e-5)
