from __future__ import annotations

import math

import pytest
import torch
from transformers import DynamicCache

from generators.models.decoding import Writing
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.recompute import most_deviating, recomputed
from generators.models.stitched.stitch import in_a_row, read, stitch, write
from rag.core.errors import InputError, PromptTooLong
from rag.core.types import Sampling
from tests.generators.models.stitched.conftest import CHUNKS, QUESTION, WINDOW, llama, random

CONTEXT = [token for chunk in CHUNKS for token in chunk]
START = len(CONTEXT)


@pytest.fixture
def placed(encoder):
    return in_a_row(encoder.encode_tokens(CHUNKS))


def full_cache(decoder, ids):
    cache = DynamicCache()
    decoder.forward(torch.tensor([ids]), torch.arange(len(ids))[None], cache)
    return cache


def test_those_that_deviate_most_are_chosen(one, placed):
    full = full_cache(one, CONTEXT).layers[1].values[0]
    stored = torch.cat([block.encoded.values[1] for block in placed], dim=1)
    deviation = (full - stored).pow(2).sum(dim=(0, 2))
    for n in (1, 4, 9):
        assert set(most_deviating(one, placed, n)) == set(deviation.argsort(descending=True)[:n].tolist())
    later = START - len(CHUNKS[0])
    assert min(most_deviating(one, placed, later)) >= len(CHUNKS[0])  # the first passage is exact as it is


def test_choosing_computes_no_more_than_it_needs(one, placed):
    deeper = []
    hook = one._model.model.layers[2].register_forward_hook(lambda *_: deeper.append(1))
    most_deviating(one, placed, 3)
    hook.remove()
    assert deeper == []


@pytest.mark.parametrize("share", [0.01, 0.15, 0.5])
def test_the_share_is_rounded_up_and_only_those_rows_run(one, placed, share):
    rows, forward = [], one.forward
    one.forward = lambda ids, *rest, **named: (rows.append(ids.shape[1]), forward(ids, *rest, **named))[1]
    cache, logits = recomputed(one, placed, QUESTION, START, share)
    assert rows == [START, math.ceil(share * START) + len(QUESTION)]
    assert logits.shape == (1, 300)
    assert cache.get_seq_length() == START + len(QUESTION)


def test_recomputed_rows_are_written_and_the_others_stay(one, placed):
    n = 6
    before, chosen = stitch(one, placed), most_deviating(one, placed, n)
    after, _ = recomputed(one, placed, QUESTION, START, n / START)
    others = [place for place in range(START) if place not in chosen]
    full = full_cache(one, CONTEXT)
    for layer in range(1, 3):
        assert torch.equal(before.layers[layer].keys[:, :, others], after.layers[layer].keys[:, :, others])
        assert torch.equal(before.layers[layer].values[:, :, others], after.layers[layer].values[:, :, others])
        assert not torch.allclose(before.layers[layer].values[:, :, chosen], after.layers[layer].values[:, :, chosen], atol=1e-3)
    # the first layer saw everything, so the chosen rows of the second are those of full attention
    assert float((after.layers[1].values[:, :, chosen] - full.layers[1].values[:, :, chosen]).abs().max()) <= 1e-12
    assert float((after.layers[1].keys[:, :, chosen] - full.layers[1].keys[:, :, chosen]).abs().max()) <= 1e-12


def test_what_no_passage_changes_is_all_that_need_be_recomputed(one, placed):
    """Without the first passage, which is exact, the share that is left gives full prefill already."""
    share = (START - len(CHUNKS[0])) / START
    _, logits = recomputed(one, placed, QUESTION, START, share)
    ids = [*CONTEXT, *QUESTION]
    full = one.forward(torch.tensor([ids]), torch.arange(len(ids))[None], DynamicCache())[0]
    assert float((logits - full).abs().max()) <= 1e-10


def test_writing_goes_on_behind_it(one, placed):
    cache, logits = recomputed(one, placed, QUESTION, START, 1.0)
    prompt = [*CONTEXT, *QUESTION]
    ours = write(one, cache, logits[-1], len(prompt), Writing(prompt, Sampling(8, logprobs=0)))
    whole = DynamicCache()
    first = read(one, whole, prompt, 0)
    theirs = write(one, whole, first[-1], len(prompt), Writing(prompt, Sampling(8, logprobs=0)))
    assert [token.id for token in ours.tokens] == [token.id for token in theirs.tokens]
    assert cache.get_seq_length() == len(prompt) + 7


def test_no_passages_is_the_question_alone(one):
    _, logits = recomputed(one, [], QUESTION, 0, 0.5)
    alone = one.forward(torch.tensor([QUESTION]), torch.arange(len(QUESTION))[None], DynamicCache())[0]
    assert float((logits - alone).abs().max()) <= 1e-12


def test_a_single_layer_has_nothing_that_deviates(decoder_of):
    torch.manual_seed(3)
    decoder = decoder_of(random(llama(num_hidden_layers=1)))
    placed = in_a_row(LocalEncoder.over(decoder).encode_tokens(CHUNKS))
    _, some = recomputed(decoder, placed, QUESTION, START, 0.3)
    _, none = recomputed(decoder, placed, QUESTION, START, 0.0)
    assert float((some - none).abs().max()) <= 1e-12


@pytest.mark.parametrize("share", [-0.1, 1.01, float("nan")])
def test_a_share_is_from_0_to_1(one, placed, share):
    with pytest.raises(InputError, match="from 0 to 1"):
        recomputed(one, placed, QUESTION, START, share)


def test_the_question_must_be_there_and_fit(one, placed):
    with pytest.raises(InputError, match="nothing to read"):
        recomputed(one, placed, [], START, 0.5)
    with pytest.raises(PromptTooLong):
        recomputed(one, placed, QUESTION, WINDOW - 2, 0.5)
