from __future__ import annotations

import pytest
import torch
from transformers import DynamicCache

from generators.models.stitched.reference import block_mask, joint
from rag.core.errors import InputError


def test_blocks_see_themselves_and_the_last_sees_all():
    seen = (block_mask([2, 1, 2], torch.float32)[0, 0] == 0).int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_what_is_not_seen_weighs_nothing(dtype):
    mask = block_mask([1, 1, 1], dtype)[0, 0]
    assert mask.dtype == dtype
    assert torch.softmax(mask.double(), -1).tolist() == [[1, 0, 0], [0, 1, 0], pytest.approx([1 / 3] * 3)]


def test_the_first_block_reaches_the_last_one_and_no_other(one):
    def kept(first: list[int]) -> torch.Tensor:
        ids, cache = torch.tensor([[*first, 8, 9, 10, 11]]), DynamicCache()
        one.forward(ids, torch.arange(7)[None], cache, block_mask([3, 2, 2], torch.float64))
        return cache.layers[2].values[0, 0]

    here, there = kept([5, 6, 7]), kept([5, 66, 7])
    assert torch.equal(here[3:5], there[3:5])
    assert (here[5:] - there[5:]).abs().min() > 1e-6


def test_joint_gives_the_last_block_at_its_places(one):
    blocks = [[5, 6, 7], [8, 9], [10, 11]]
    ids = torch.tensor([[token for block in blocks for token in block]])
    for starts in ([0, 3, 5], [20, 0, 40]):
        places = torch.cat([torch.arange(start, start + len(block)) for start, block in zip(starts, blocks, strict=True)])
        expected = one.forward(ids, places[None], DynamicCache(), block_mask([3, 2, 2], torch.float64), keep=0)[0, -2:]
        assert torch.allclose(joint(one, blocks, starts), expected, rtol=0, atol=1e-12)
    assert torch.equal(joint(one, blocks), joint(one, blocks, [0, 3, 5]))
    assert not torch.allclose(joint(one, blocks), joint(one, blocks, [20, 0, 40]), atol=1e-3)


@pytest.mark.parametrize(("blocks", "starts"), [([], None), ([[1], []], None), ([[1], [2]], [0])])
def test_empty_blocks_and_missing_starts_are_errors(one, blocks, starts):
    with pytest.raises(InputError, match="at least one token"):
        joint(one, blocks, starts)
