from __future__ import annotations

import math

import pytest
import torch
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as interleaved
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb as halves

from generators.models.stitched.rotary import Frequencies, Rotary, frequencies_of
from rag.core.errors import MissingCapability
from tests.generators.models.stitched.conftest import KINDS, llama, random

PER_PAIR = torch.tensor([1.0, 0.3, 0.01])


def keys(dtype: torch.dtype = torch.float64, seed: int = 5) -> torch.Tensor:
    return torch.randn(2, 7, 10, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_a_pair_turns_by_its_frequency_times_the_position():
    one = torch.zeros(1, 1, 10, dtype=torch.float64)
    one[..., 1] = 1.0
    turned = Rotary("half", Frequencies(PER_PAIR.double())).rotate(one, torch.tensor([4]))
    assert turned[0, 0, 1].item() == pytest.approx(math.cos(4 * 0.3), abs=1e-6)
    assert turned[0, 0, 4].item() == pytest.approx(math.sin(4 * 0.3), abs=1e-6)  # f + pairs
    turned = Rotary("interleaved", Frequencies(PER_PAIR.double())).rotate(one.roll(1, -1), torch.tensor([4]))
    assert turned[0, 0, 2].item() == pytest.approx(math.cos(4 * 0.3), abs=1e-6)  # 2f
    assert turned[0, 0, 3].item() == pytest.approx(math.sin(4 * 0.3), abs=1e-6)


def test_both_pairings_are_those_of_transformers():
    frequencies, places, raw = Frequencies(PER_PAIR.double()), torch.arange(7), keys()
    angles = places[:, None].double() * frequencies.per_pair
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    expected, _ = halves(raw[None, ..., :6], raw[None, ..., :6], cos[None], sin[None])
    assert torch.allclose(Rotary("half", frequencies).rotate(raw, places)[..., :6], expected[0], atol=1e-14)
    theirs = interleaved(raw[None, ..., :6].transpose(1, 2), angles.sin()[None], angles.cos()[None]).transpose(1, 2)
    assert torch.allclose(Rotary("interleaved", frequencies).rotate(raw, places)[..., :6], theirs[0], atol=1e-14)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_only_the_turning_dimensions_turn_and_lengths_stay(pairing):
    raw, rotary = keys(), Rotary(pairing, Frequencies(PER_PAIR))
    turned = rotary.rotate(raw, torch.arange(3, 10))
    assert rotary.dims == 6
    assert torch.equal(turned[..., 6:], raw[..., 6:])
    assert torch.allclose(turned.norm(dim=-1), raw.norm(dim=-1))
    assert torch.equal(rotary.rotate(raw, torch.zeros(7, dtype=torch.long)), raw)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_rotations_add(pairing):
    raw, rotary = keys(), Rotary(pairing, Frequencies(PER_PAIR.double()))
    twice = rotary.rotate(rotary.rotate(raw, torch.full((7,), 11)), torch.arange(7))
    assert torch.allclose(twice, rotary.rotate(raw, torch.arange(11, 18)), atol=1e-14)


def test_the_factor_comes_in_once_and_not_where_nothing_turns():
    raw = keys()
    plain = Rotary("half", Frequencies(PER_PAIR)).rotate(raw, torch.arange(7))
    scaled = Rotary("half", Frequencies(PER_PAIR, 1.25)).rotate(raw, torch.arange(7))
    assert torch.allclose(scaled[..., :6], 1.25 * plain[..., :6])
    assert torch.equal(scaled[..., 6:], plain[..., 6:])


def test_yarn_has_a_factor_and_llama3_none():
    assert frequencies_of(KINDS["yarn"]()).factor == pytest.approx(0.1 * math.log(4.0) + 1)
    assert frequencies_of(KINDS["llama3"]()).factor == 1.0
    plain, yarn, llama3 = (frequencies_of(KINDS[name]()).per_pair for name in ("llama", "yarn", "llama3"))
    assert not torch.equal(plain, yarn)
    assert not torch.equal(plain, llama3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_keys_are_turned_in_float32(dtype):
    raw, rotary = keys(dtype), Rotary("half", Frequencies(PER_PAIR))
    turned = rotary.rotate(raw, torch.arange(900, 907))
    assert turned.dtype == torch.float32
    assert torch.equal(turned, rotary.rotate(raw.float(), torch.arange(900, 907)))


def test_identity_tells_pairings_dimensions_frequencies_and_factors_apart():
    rotaries = [
        Rotary("half", Frequencies(PER_PAIR)),
        Rotary("interleaved", Frequencies(PER_PAIR)),
        Rotary("half", Frequencies(PER_PAIR[:2])),
        Rotary("half", Frequencies(PER_PAIR * 1.001)),
        Rotary("half", Frequencies(PER_PAIR, 1.1)),
    ]
    assert len({rotary.identity for rotary in rotaries}) == len(rotaries)
    assert rotaries[0].identity == Rotary("half", Frequencies(PER_PAIR.double())).identity


def test_float32_keys_are_the_models_own_to_the_last_bit(tokenizer):
    from generators.models.stitched.decoder import Decoder
    from generators.models.stitched.encoder import LocalEncoder
    from generators.models.stitched.stitch import in_a_row, stitch

    torch.manual_seed(3)
    decoder = Decoder(random(llama()).float(), tokenizer, "llama")
    ids, cache = list(range(5, 25)), DynamicCache()
    decoder.forward(torch.tensor([ids]), torch.arange(20)[None], cache)
    ours = stitch(decoder, in_a_row(LocalEncoder.over(decoder).encode_tokens([ids])))
    for one, other in zip(ours.layers, cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, n_positions=32)), r"learned positions .*wpe"),
        (
            lambda: OPTForCausalLM(
                OPTConfig(vocab_size=40, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16)
            ),
            r"learned positions .*embed_positions",
        ),
        (lambda: llama(rope_parameters={"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}), "'dynamic'.*length of the whole text"),
        (lambda: torch.nn.Linear(2, 2), "no rotary frequencies"),
    ],
)
def test_what_cannot_be_moved_is_refused_with_the_reason(model, said):
    with pytest.raises(MissingCapability, match=said):
        frequencies_of(model())


def test_layers_that_turn_differently_are_refused():
    model = llama()
    model.other = type(model.model.rotary_emb)(model.config)
    model.other.inv_freq *= 2
    with pytest.raises(MissingCapability, match="different frequencies"):
        frequencies_of(model)
