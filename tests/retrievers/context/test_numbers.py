from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from rag.core.errors import InputError, ModelError
from retrievers.context.encoded import Encoded
from retrievers.context.numbers import FORMATS, Deviation, checksum, number_format, size
from tests.retrievers.context.fake import MODEL, FakeEncoder

TEXT = "one two three four five six seven eight nine ten eleven"


@pytest.mark.parametrize("name", FORMATS)
def test_bytes_equal_the_formula(name: str) -> None:
    form = number_format(name)
    packed, _ = form.pack(FakeEncoder().one(TEXT))
    assert {part: (tensor.dtype, tuple(tensor.shape)) for part, tensor in packed.items()} == form.layout(MODEL, 11)
    assert size(packed) == form.bytes(MODEL, 11)
    scales = 0 if name.startswith("float") else 2 * 2 * 3 * 2 * (8 + 11)  # low and step of 8 channels (keys) and 11 tokens (values)
    assert size(packed) == MODEL.bytes_per_token(form.bits / 8) * 11 + 11 * 4 + scales


@pytest.mark.parametrize(("name", "limit"), [("float16", 3e-4), ("int8", 6e-3), ("int4", 0.1)])
def test_the_measured_error_is_that_of_what_is_read_back(name: str, limit: float) -> None:
    form, encoded = number_format(name), FakeEncoder().one(TEXT)
    packed, deviation = form.pack(encoded)
    back = form.unpack(packed, torch.float32)
    assert back.tokens == encoded.tokens
    for found, old, new in ((deviation.keys, encoded.keys, back.keys), (deviation.values, encoded.values, back.values)):
        assert found == pytest.approx(float(((new - old).square().sum() / old.square().sum()).sqrt()), rel=1e-4)
        assert 0 < found < limit


def test_no_number_is_further_off_than_half_a_step() -> None:
    form, encoded = number_format("int8"), FakeEncoder().one(TEXT)
    packed, _ = form.pack(encoded)
    off = (form.unpack(packed, torch.float32).keys - encoded.keys).abs()
    assert bool((off <= packed["keys.step"].float() * 0.51 + packed["keys.low"].abs().float() * 2**-11).all())


def test_nibbles_come_back_in_their_places() -> None:
    tokens, channels = torch.arange(16).view(16, 1), torch.arange(8).view(1, 8)
    keys = ((tokens + 3 * channels) % 16).float().expand(3, 2, 16, 8)  # every channel goes from 0 to 15: all are whole steps
    form = number_format("int4")
    back = form.unpack(form.pack(Encoded(tuple(range(16)), keys, keys))[0], torch.float32)
    assert torch.equal(back.keys, keys)


@pytest.mark.parametrize("name", FORMATS)
def test_constants_and_zeros_survive(name: str) -> None:
    form = number_format(name)
    whole = torch.full((3, 2, 4, 8), 0.5)
    back = form.unpack(form.pack(Encoded((1, 2, 3, 4), whole, whole * 0))[0], torch.float32)
    assert torch.allclose(back.keys, whole, atol=1e-6)
    assert torch.allclose(back.values, whole * 0, atol=1e-6)


def test_float32_keeps_every_bit_and_large_numbers() -> None:
    form, encoded = number_format("float32"), FakeEncoder().one(TEXT)
    encoded.keys[0, 0, 0, 0] = 70_000.0
    packed, deviation = form.pack(encoded)
    back = form.unpack(packed, torch.float32)
    assert torch.equal(back.keys, encoded.keys)
    assert torch.equal(back.values, encoded.values)
    assert (deviation.keys, deviation.values) == (0, 0)
    assert packed["keys"].data_ptr() != encoded.keys.data_ptr()  # what is kept is not the encoder's
    for bad in (math.nan, math.inf):
        encoded.keys[0, 0, 0, 0] = bad
        with pytest.raises(ModelError, match="keys that are not finite"):
            form.pack(encoded)


@pytest.mark.parametrize("name", ["float16", "int8", "int4"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 70_000.0])
def test_numbers_that_no_format_holds_are_refused(name: str, bad: float) -> None:
    encoded = FakeEncoder().one(TEXT)
    encoded.values[1, 1, 3, 2] = bad
    with pytest.raises(ModelError, match="values that are not finite or beyond"):
        number_format(name).pack(encoded)


def test_half_a_byte_needs_even_heads() -> None:
    with pytest.raises(InputError, match="choose float16 or int8"):
        number_format("int4").check(replace(MODEL, head_dim=7))
    number_format("int8").check(replace(MODEL, head_dim=7))


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(InputError, match="choose one of float32, float16, int8, int4"):
        number_format("float8")


def test_deviations_add_up() -> None:
    total = Deviation(1, 4, 0, 0) + Deviation(0, 12, 9, 100)
    assert (total.keys, total.values) == (0.25, 0.3)
    assert (Deviation().keys, Deviation().values) == (0, 0)


def test_the_checksum_sees_names_shapes_and_every_bit() -> None:
    packed, _ = number_format("int8").pack(FakeEncoder().one(TEXT))
    swapped = {**packed, "keys": packed["values"], "values": packed["keys"]}
    flipped = {**packed, "keys": packed["keys"].clone()}
    flipped["keys"].view(-1)[17] ^= 1
    reshaped = {**packed, "keys": packed["keys"].reshape(3, 2, 8, 11)}
    assert len({checksum(each) for each in (packed, swapped, flipped, reshaped)}) == 4
