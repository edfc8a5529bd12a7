"""What is computed behind stitched passages, or among them, with all that stands before it: some of their tokens, and link tokens.

CacheBlend (Yao et al., EuroSys 2025, https://arxiv.org/abs/2405.16444), section 4: the tokens that full attention would change most are
computed again. They are chosen once, by how far their values at the second layer lie from the stored ones; the first layer is computed for
all. Its keys and values need no context, so theirs are exact.

KVLink (Yang et al. 2025, https://arxiv.org/abs/2502.16002): the tokens behind each passage are not stored, for they see those before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import torch

from generators.models.stitched.decoder import Decoder
from generators.models.stitched.reference import causal_addend
from generators.models.stitched.stitch import Placed, check_place, stitch
from rag.core.errors import InputError
from retrievers.context.encoded import Encoded

if TYPE_CHECKING:
    from transformers import DynamicCache

_CHECKED_LAYER = 1


def recomputed(
    decoder: Decoder, placed: Sequence[Placed], question: Sequence[int], start: int, share: float, keep: int = 1
) -> tuple[DynamicCache, torch.Tensor]:
    """The stitched cache with ``question`` behind it, from position ``start`` on, and the logits [``keep``, vocabulary] of its last tokens.

    Of the passages' tokens ``share`` are computed again, rounded up; link tokens (`link_block`) and the question always are. 1 gives
    ordinary prefill, 0 the block mask. ``keep`` 0 keeps the logits of the whole question. Raises `InputError` for a share outside [0, 1] or
    no question, and what `stitch` does.
    """
    if not 0 <= share <= 1:
        raise InputError(f"share is a number from 0 to 1 of the passages' tokens, not {share!r}")
    if not question:
        raise InputError("there is nothing to read behind the passages: give the question's tokens")
    check_place(decoder, start, start + len(question))
    cache = stitch(decoder, placed)
    context = [token for one in placed for token in one.encoded.tokens]
    places = [place for one in placed for place in range(one.start, one.end)]
    links = _links(decoder, context)
    again = math.ceil(round(share * (len(context) - len(links)), 6))
    chosen = most_deviating(decoder, placed, again) if again else []
    rows = torch.tensor([*sorted([*chosen, *links]), *range(len(context), len(context) + len(question))], device=decoder.device)
    tokens = torch.tensor([*context, *question], device=decoder.device)
    positions = torch.tensor([*places, *range(start, start + len(question))], device=decoder.device)
    # A row sees what stands before it in the text, whether that was computed again or not.
    seen = torch.arange(len(tokens), device=decoder.device)[None, :] <= rows[:, None]
    with decoder.lock:
        patched = _patched(cache, rows, len(tokens), decoder)
        logits = decoder.forward(
            tokens[rows][None], positions[rows][None], patched, causal_addend(seen, decoder.dtype), keep or len(question)
        )[0]
    return patched, logits


def link_block(decoder: Decoder) -> Encoded:
    """What stands behind a passage: room for the link tokens that ``decoder`` wears, of which nothing is known before the passages are."""
    room = torch.zeros(decoder.layers, decoder.heads, len(decoder.links), decoder.head_dim, dtype=decoder.dtype)
    return Encoded(decoder.links, room, room)


def most_deviating(decoder: Decoder, placed: Sequence[Placed], n: int) -> list[int]:
    """The ``n`` tokens, as ascending places in the joined passages, whose stored values deviate most from those of full attention.

    Deviation: the squared difference, summed over heads and dimensions, at the second layer. Link tokens are none of them.
    """
    tokens = torch.tensor([[token for one in placed for token in one.encoded.tokens]], device=decoder.device)
    positions = torch.cat([torch.arange(one.start, one.end) for one in placed])[None].to(decoder.device)
    stored = torch.cat([one.encoded.values[_checked_layer(decoder)] for one in placed], dim=1).to(decoder.device)
    new = _values(decoder, tokens, positions)
    deviation = (new - stored.to(new.dtype)).square().sum(dim=(0, 2))
    deviation[_links(decoder, tokens[0].tolist())] = -1.0
    return sorted(deviation.topk(n).indices.tolist())


def _links(decoder: Decoder, tokens: Sequence[int]) -> list[int]:
    """Where link tokens stand."""
    return [place for place, token in enumerate(tokens) if token in decoder.links]


def _values(decoder: Decoder, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Values [heads, tokens, head_dim] of the checked layer under full attention; nothing beyond it is computed."""
    from transformers import DynamicCache

    from generators.models.stitched.layers import LastLayer, PlainLayer, Reached

    cache, last = DynamicCache(), LastLayer()  # type: ignore[no-untyped-call]
    cache.layers = [*(PlainLayer() for _ in range(_checked_layer(decoder))), last]
    with decoder.lock, suppress(Reached):
        decoder.forward(tokens, positions, cache)
    return last.reached[0]


def _patched(cache: DynamicCache, rows: torch.Tensor, tokens: int, decoder: Decoder) -> DynamicCache:
    """``cache`` as one of ``tokens``, of which ``rows`` are about to be written."""
    from transformers import DynamicCache

    from generators.models.stitched.layers import PatchedLayer

    new = tokens - cache.get_seq_length()
    room = torch.zeros(1, decoder.heads, new, decoder.head_dim, dtype=decoder.dtype, device=decoder.device)
    patched, stored = DynamicCache(), [(layer.keys, layer.values) for layer in cache.layers]  # type: ignore[union-attr]
    for layer in range(decoder.layers):
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*stored[layer : layer + 1], (room, room), strict=True))
        patched.layers.append(PatchedLayer(keys, values, rows))
    return patched


def _checked_layer(decoder: Decoder) -> int:
    return min(_CHECKED_LAYER, decoder.layers - 1)  # one layer alone sees no context in its values: no token deviates
