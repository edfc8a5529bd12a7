"""Prefix-exact reuse against one ordinary forward pass over the whole prompt, in float64: equal, whatever was read before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from generators.models.decoding import Writing
from generators.models.stitched.decoder import Decoder
from generators.models.stitched.encoder import LocalEncoder
from generators.models.stitched.prefix import Begun, PrefixReader
from generators.models.stitched.prompt import PASSAGES
from rag.core.errors import InputError
from rag.core.types import Sampling
from tests.generators.models.stitched.conftest import KINDS, WINDOW, Double, random

EXACT = 1e-12
TEXTS = {"a": "the cat sat", "b": "the dog ran to the cat", "c": "a stop ends here"}
WRITTEN = 3


@pytest.fixture(params=["qwen3", "neox"])
def decoder(request: pytest.FixtureRequest, decoder_of: Callable[[Any], Decoder]) -> Decoder:
    torch.manual_seed(3)
    return decoder_of(random(KINDS[request.param]()))


class Heard(Writing):
    """Keeps the logits that it chose from, and its choices."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__(ids, Sampling(WRITTEN))
        self.logits: list[torch.Tensor] = []
        self.chosen: list[int] = []

    def choose(self, logits: torch.Tensor) -> int:
        self.logits.append(logits)
        self.chosen.append(super().choose(logits))
        return self.chosen[-1]


def prepared(reader: PrefixReader, names: str, question: str = "who?", room: int = WRITTEN) -> Begun:
    return reader.prepare(f"{PASSAGES}\n\n{question}", list(names), [TEXTS[name] for name in names], room)


def deviation(reader: PrefixReader, made: Begun) -> float:
    """Of the logits of every token written, from those of one pass over all of it."""
    decoder, row = reader.encoder.decoder, Heard(made.tokens)
    reader.answer(made, row)
    whole = torch.tensor([[*made.tokens, *row.chosen[:-1]]])
    with decoder.lock:
        full = decoder.forward(whole, torch.arange(whole.shape[1])[None], DynamicCache(), keep=len(row.chosen))[0]
    read = torch.stack(row.logits)
    assert read.dtype == full.dtype == torch.float64
    assert read.shape == full.shape
    return float((read.log_softmax(-1) - full.log_softmax(-1)).abs().max())


@contextmanager
def computed(decoder: Decoder) -> Iterator[list[int]]:
    """How many tokens each forward pass computes."""
    sizes: list[int] = []
    forward = decoder.forward
    decoder.forward = lambda tokens, *rest, **named: (sizes.append(tokens.numel()), forward(tokens, *rest, **named))[1]  # type: ignore[method-assign]
    try:
        yield sizes
    finally:
        decoder.forward = forward  # type: ignore[method-assign]


def test_cold_warm_partly_warm_and_in_another_order_it_is_ordinary_reading(decoder: Decoder) -> None:
    reader = PrefixReader(LocalEncoder.over(decoder))
    for names, question, hits in (
        ("ab", "who?", 0),
        ("ab", "who?", 2),
        ("ab", "why not?", 2),
        ("ac", "who?", 1),
        ("ba", "who?", 0),
        ("b", "who?", 1),
        ("bac", "where?", 2),
        ("", "who?", 0),
    ):
        made = prepared(reader, names, question)
        assert (made.passages, made.hits) == (len(names), hits), names
        assert deviation(reader, made) <= EXACT, names
    assert reader.tree.evictions == 0


def test_only_what_differs_is_computed_in_one_pass(decoder: Decoder) -> None:
    reader = PrefixReader(LocalEncoder.over(decoder))
    for names, known in (("ab", 0), ("ab", 3), ("ac", 2), ("ca", 1)):  # of the template's beginning and two passages
        made = prepared(reader, names)
        with computed(decoder) as sizes:
            reader.answer(made, Writing(made.tokens, Sampling(1)))
        assert made.reused == sum(map(len, made.blocks[:known]))
        assert sizes == [len(made.tokens) - made.reused]


def test_after_eviction_it_is_ordinary_reading_and_the_bound_is_kept(decoder: Decoder) -> None:
    cold = prepared(PrefixReader(LocalEncoder.over(decoder)), "ab")
    size = decoder.identity.bytes_per_token(8)
    reader = PrefixReader(LocalEncoder.over(decoder), int(size * (sum(map(len, cold.blocks)) + 1)))  # of one prompt
    seen = set()
    for names in ("ab", "ab", "ba", "ab", "cb", "b", "ab", "ca", "ab"):
        made = prepared(reader, names)
        seen.add(made.hits)
        assert deviation(reader, made) <= EXACT, names
        assert reader.tree.bytes <= reader.tree.capacity
    assert reader.tree.evictions > 2
    assert seen >= {0, 2}
    nothing = PrefixReader(LocalEncoder.over(decoder), 0)
    assert [deviation(nothing, prepared(nothing, "ab")) <= EXACT for _ in range(2)] == [True, True]
    assert nothing.tree.bytes == 0


def test_bytes_are_those_of_the_formula(decoder: Decoder) -> None:
    reader = PrefixReader(LocalEncoder.over(decoder))
    for names in ("ab", "ac"):
        made = prepared(reader, names)
        reader.answer(made, Writing(made.tokens, Sampling(1)))
    tokens = sum(len(block) for block in {*made.blocks, *prepared(reader, "ab").blocks})
    assert reader.tree.bytes == decoder.identity.bytes_per_token(8) * tokens


def test_what_leaves_between_finding_and_reading_is_still_right(decoder: Decoder) -> None:
    cold = prepared(PrefixReader(LocalEncoder.over(decoder)), "ab")
    reader = PrefixReader(LocalEncoder.over(decoder), int(decoder.identity.bytes_per_token(8) * (sum(map(len, cold.blocks)) + 1)))
    assert deviation(reader, prepared(reader, "ab")) <= EXACT
    found = prepared(reader, "ac")
    for _ in range(3):
        assert deviation(reader, prepared(reader, "ba")) <= EXACT
    assert found.hits == 1 > prepared(reader, "ac").hits
    assert deviation(reader, found) <= EXACT


def test_threads_at_once_read_right(decoder: Decoder) -> None:
    encoder = LocalEncoder.over(decoder)
    cold = prepared(PrefixReader(encoder), "ab")
    reader = PrefixReader(encoder, int(decoder.identity.bytes_per_token(8) * sum(map(len, cold.blocks)) * 1.5))
    off: list[float] = []
    failures: list[BaseException] = []

    def ask(orders: list[str]) -> None:
        try:
            with Double():  # of this thread alone
                off.extend(deviation(reader, prepared(reader, names)) for names in orders)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=(orders,)) for orders in (["ab", "ac", "ab", "ba"], ["ab", "ba", "cb", "ab"])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    assert len(off) == 8
    assert max(off) <= EXACT
    assert reader.tree.bytes <= reader.tree.capacity


def test_what_was_read_behind_other_passages_would_not_do(decoder: Decoder) -> None:
    """So the tests of exactness can fail."""
    reader = PrefixReader(LocalEncoder.over(decoder))
    for names in ("ab", "cb"):
        deviation(reader, prepared(reader, names))
    right, other = prepared(reader, "ab"), prepared(reader, "cb")
    assert right.blocks[2] == other.blocks[2]
    wrong = Begun(right.blocks, right.question, (*right.known[:2], other.known[2]))
    assert deviation(reader, right) <= EXACT
    assert deviation(PrefixReader(LocalEncoder.over(decoder)), wrong) > 1e-3


def test_a_prompt_fills_the_window_to_its_last_token(decoder: Decoder) -> None:
    reader = PrefixReader(LocalEncoder.over(decoder))
    room = WINDOW - len(prepared(reader, "ab").tokens)
    assert prepared(reader, "ab", room=room).passages == 2
    made = prepared(reader, "ab", room=room + 1)
    assert made.passages == 1
    assert made.tokens == prepared(reader, "a").tokens
    alone = WINDOW - len(prepared(reader, "").tokens)
    assert prepared(reader, "ab", room=alone).passages == 0
    with pytest.raises(InputError, match="the question is too long"):
        prepared(reader, "ab", room=alone + 1)
