from __future__ import annotations

import pytest

from generators.models.vllm_contexts.claims import MOST_BLOCKS, Claim, blocks_of, claim_of
from generators.models.vllm_contexts.scheduler import claim_for
from rag.core.errors import InputError
from retrievers.context.encoded import token_hash


def test_blocks_are_named_by_the_hash_of_their_tokens_and_nothing_else() -> None:
    tokens = [5, 6, 7, 8, 9, 10]
    blocks = blocks_of(Claim(borders=[2, 3, 5]), tokens)
    assert [(block.start, block.end) for block in blocks] == [(0, 2), (2, 3), (3, 5)]
    assert [block.spelling for block in blocks] == [token_hash([5, 6]), token_hash([7]), token_hash([8, 9])]
    assert token_hash([1, 2]) != token_hash([2, 1]) != token_hash([2]) != token_hash([])
    assert token_hash((70000, 1)) == token_hash([70000, 1])


def test_what_a_client_writes_is_what_the_server_reads() -> None:
    assert claim_of(claim_for([3, 5])) == Claim(borders=[3, 5])
    assert claim_of(claim_for((3, 5), "acme", "secret")) == Claim(borders=[3, 5], tenant="acme", key="secret")
    assert claim_for([3]) == {"graft": {"borders": [3]}}


@pytest.mark.parametrize("params", [None, {}, {"do_remote_prefill": True}, "graft", ["graft"]])
def test_a_request_that_claims_nothing(params: object) -> None:
    assert claim_of(params) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("claim", "said"),
    [
        (None, "graft"),
        ("borders", "graft"),
        ([3], "graft"),
        ({}, "borders"),
        ({"borders": []}, "borders"),
        ({"borders": [0]}, "borders.0"),
        ({"borders": [-1]}, "borders.0"),
        ({"borders": [True]}, "borders.0"),
        ({"borders": ["3"]}, "borders.0"),
        ({"borders": [1.5]}, "borders.0"),
        ({"borders": [1] * (MOST_BLOCKS + 1)}, "borders"),
        ({"borders": [1], "store": "/etc"}, "store"),
        ({"borders": [1], "tenant": ""}, "tenant"),
        ({"borders": [1], "tenant": 3}, "tenant"),
        ({"borders": [1], "key": "k" * 1001}, "key"),
    ],
)
def test_what_is_no_claim_is_refused_by_name_and_not_repeated(claim: object, said: str) -> None:
    with pytest.raises(InputError, match=rf"^kv_transfer_params\.graft\.?{said if said != 'graft' else ''}") as raised:
        claim_of({"graft": claim})
    assert "kkkk" not in str(raised.value)
    assert "/etc" not in str(raised.value)


@pytest.mark.parametrize("borders", [[3, 3], [4, 2], [6], [2, 7], [10**30]])
def test_borders_rise_and_leave_a_question(borders: list[int]) -> None:
    with pytest.raises(InputError, match="borders must rise"):
        blocks_of(Claim(borders=borders), [1, 2, 3, 4, 5, 6])
    assert len(blocks_of(Claim(borders=[5]), [1, 2, 3, 4, 5, 6])) == 1
