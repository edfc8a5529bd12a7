"""What a request says of its prompt: where the blocks end, and whose passages they are. Client input, none of which is believed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rag.core.errors import InputError
from retrievers.context.encoded import token_hash

FIELD: Final = "graft"
"""Of a request's ``kv_transfer_params``, and of the answer's."""
MOST_BLOCKS: Final = 1024


class Claim(BaseModel):
    """``borders``: where each block ends, in tokens of the prompt; the question stands behind the last one.

    ``tenant`` and ``key`` are those of the server's configuration; without them the prompt is made of passages that are everyone's.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    borders: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=MOST_BLOCKS)]
    tenant: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    key: Annotated[str, Field(min_length=1, max_length=1000)] | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a prompt: where it stands, and the hash of its tokens, by which it is looked for."""

    start: int
    end: int
    spelling: str


def claim_of(params: Mapping[str, Any] | None) -> Claim | None:
    """What ``kv_transfer_params`` claim; None if they have no such field. Raises `InputError`."""
    if not isinstance(params, Mapping) or FIELD not in params:
        return None
    try:
        return Claim.model_validate(params[FIELD])
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise InputError(f"kv_transfer_params.{FIELD}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def blocks_of(claim: Claim, tokens: Sequence[int]) -> list[Block]:
    """The blocks of a prompt with these ``tokens``. Raises `InputError` unless borders rise and leave a question of one token or more."""
    borders = claim.borders
    if any(later <= earlier for earlier, later in pairwise(borders)) or borders[-1] >= len(tokens):
        raise InputError(f"borders must rise, and the last must leave a token of the {len(tokens)} behind it")
    starts = [0, *borders[:-1]]
    return [Block(start, end, token_hash(tokens[start:end])) for start, end in zip(starts, borders, strict=True)]
