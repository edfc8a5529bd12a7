from __future__ import annotations

import asyncio

import pytest

from rag.core.deadline import remaining, within


def test_there_is_no_end_unless_one_is_set() -> None:
    assert remaining() is None
    with within(5.0):
        left = remaining()
        assert left is not None
        assert 4.0 < left <= 5.0
    assert remaining() is None


def test_the_earlier_end_counts() -> None:
    with within(5.0), within(60.0):
        assert (remaining() or 0) <= 5.0
    with within(60.0), within(5.0):
        assert (remaining() or 0) <= 5.0


def test_it_never_is_below_zero_and_goes_down_into_tasks() -> None:
    async def asked() -> float | None:
        return await asyncio.create_task(_told())

    async def _told() -> float | None:
        return remaining()

    with within(0.0):
        assert asyncio.run(asked()) == pytest.approx(0.0)
