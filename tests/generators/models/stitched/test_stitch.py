from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from generators.models.decoding import Writing
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.reference import joint
from generators.models.stitched.stitch import Placed, in_a_row, read, stitch, write
from rag.core.errors import InputError, PromptTooLong
from rag.core.types import Sampling
from tests.generators.models.stitched.conftest import CHUNKS, QUESTION, WINDOW, tokens

PROMPT = [*CHUNKS[0], *CHUNKS[1], *CHUNKS[2], *QUESTION]
START = len(PROMPT) - len(QUESTION)


@pytest.fixture
def placed(encoder):
    return in_a_row(encoder.encode_tokens(CHUNKS))


def written(decoder, placed, sampling, **settings):
    cache = stitch(decoder, placed)
    logits = read(decoder, cache, QUESTION, START)
    row = Writing(PROMPT, sampling, **settings)
    return write(decoder, cache, logits[-1], len(PROMPT), row), row


def test_each_stands_behind_the_one_before(encoder):
    placed = in_a_row(encoder.encode_tokens(CHUNKS), start=7)
    assert [(one.start, one.end) for one in placed] == [(7, 16), (16, 21), (21, 33)]
    assert in_a_row([]) == []


def test_what_is_written_is_what_the_block_mask_would_write(one, placed):
    """Greedily, token by token, against one joint pass over the whole text each time."""
    expected, behind = [], list(QUESTION)
    for _ in range(8):
        expected.append(int(joint(one, [*CHUNKS, behind])[-1].argmax()))
        behind.append(expected[-1])
    generation, _ = written(one, placed, Sampling(8, logprobs=0))
    assert [token.id for token in generation.tokens] == expected
    assert generation.prompt_tokens == len(PROMPT)
    assert generation.finish == "length"


def test_only_the_question_is_computed(one, placed):
    seen, forward = [], one.forward
    one.forward = lambda ids, *rest, **named: (seen.append(tuple(ids.shape)), forward(ids, *rest, **named))[1]
    written(one, placed, Sampling(4))
    assert seen == [(1, len(QUESTION)), (1, 1), (1, 1), (1, 1)]


def test_a_stop_string_an_end_token_and_a_listener_are_heeded(one, placed):
    whole, _ = written(one, placed, Sampling(8, logprobs=0))
    heard: list[str] = []
    written(one, placed, Sampling(8), listener=heard.append)
    assert "".join(heard) == whole.text
    one.ends = frozenset({whole.tokens[3].id})
    ended, _ = written(one, placed, Sampling(8))
    assert (ended.finish, ended.generated_tokens) == ("stop", [token.id for token in whole.tokens].index(whole.tokens[3].id) + 1)


def test_a_cancelled_row_ends_at_its_next_token(one, placed):
    row = Writing(PROMPT, Sampling(8))
    cache = stitch(one, placed)
    logits = read(one, cache, QUESTION, START)
    row.cancelled = True
    assert write(one, cache, logits[-1], len(PROMPT), row).generated_tokens == 1


def test_writing_stops_at_the_window_and_needs_room_for_a_token(one, encoder):
    (long,) = encoder.encode_tokens([tokens(9, WINDOW - 4)])
    cache = stitch(one, [Placed(long, 0)])
    logits = read(one, cache, [5, 6], WINDOW - 4)
    before = [*long.tokens, 5, 6]
    assert write(one, cache, logits[-1], WINDOW - 2, Writing(before, Sampling(9))).generated_tokens == 2
    with pytest.raises(PromptTooLong, match="no room to write"):
        write(one, cache, logits[-1], WINDOW, Writing(before, Sampling(9)))


def test_a_passage_moves_to_the_very_end_of_the_window(one, encoder):
    (last,) = encoder.encode_tokens([CHUNKS[0]])
    start = WINDOW - len(QUESTION) - len(CHUNKS[0])
    there = read(one, stitch(one, [Placed(last, start)]), QUESTION, WINDOW - len(QUESTION), keep=0)
    here = read(one, stitch(one, [Placed(last, 0)]), QUESTION, len(CHUNKS[0]), keep=0)
    assert float((there.log_softmax(-1) - here.log_softmax(-1)).abs().max()) <= 1e-12


@pytest.mark.parametrize("start", [-1, WINDOW - 8])
def test_no_passage_stands_outside_the_window(one, placed, start):
    with pytest.raises((InputError, PromptTooLong), match="from 0" if start < 0 else f"position {WINDOW + 1}"):
        stitch(one, [Placed(placed[0].encoded, start)])


def test_the_question_must_be_there_and_fit(one, placed):
    cache = stitch(one, placed)
    with pytest.raises(InputError, match="nothing to read"):
        read(one, cache, [], START)
    with pytest.raises(PromptTooLong, match=f"position {WINDOW + 1}"):
        read(one, cache, QUESTION, WINDOW - 5)
    assert cache.get_seq_length() == START


def test_no_passages_at_all_is_the_question_alone(one):
    cache = stitch(one, [])
    alone = one.forward(torch.tensor([QUESTION]), torch.arange(len(QUESTION))[None], DynamicCache())[0]
    assert torch.equal(read(one, cache, QUESTION, 0), alone)


@pytest.mark.parametrize("part", ["keys", "values"])
@pytest.mark.parametrize("cut", [lambda t: t[:2], lambda t: t[:, :1], lambda t: t[:, :, 1:], lambda t: t[..., :4], lambda t: t[0]])
def test_keys_and_values_of_another_shape_are_refused(one, placed, part, cut):
    wrong = replace(placed[1].encoded, **{part: cut(getattr(placed[1].encoded, part))})
    with pytest.raises(InputError, match=r"passage 2: .* = \[3, 2, 5, 8\]"):
        stitch(one, [placed[0], Placed(wrong, 9)])


def test_stored_numbers_are_turned_before_they_are_cut_to_the_models_format(tokenizer, double, one):
    """float16 from a store: the cache differs from the exact one by the store's rounding, and no more."""
    exact = LocalEncoder.over(one).encode_tokens(CHUNKS[:1])[0]
    stored = replace(exact, keys=exact.keys.half(), values=exact.values.half())
    ours, theirs = stitch(one, [Placed(stored, 40)]), stitch(one, [Placed(exact, 40)])
    for mine, right in zip(ours.layers, theirs.layers, strict=True):
        assert mine.keys.dtype == torch.float64
        assert float((mine.keys - right.keys).norm() / right.keys.norm()) < 2**-11
        assert float((mine.values - right.values).norm() / right.values.norm()) < 2**-11
