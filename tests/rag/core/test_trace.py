from __future__ import annotations

import asyncio

import pytest

from rag.core.trace import (
    Span,
    TextDelta,
    TokensWritten,
    count,
    current_span,
    emit,
    listener,
    listening_to_tokens,
    measured,
    span,
    undertone,
    with_tokens,
)


def test_counters_land_in_the_innermost_span_and_add_up_above() -> None:
    with span("outer") as outer:
        count(calls=1)
        with span("inner") as inner:
            count(calls=2)
        count(calls=4)
    assert (outer.counts, inner.counts, outer.total("calls")) == ({"calls": 5}, {"calls": 2}, 7)
    assert outer.children == [inner]
    assert outer.seconds >= inner.seconds > 0
    assert current_span.get() is None


def test_a_measured_span_has_its_place_but_not_the_counters() -> None:
    with span("outer") as outer:
        with measured("inner") as inner:
            count(calls=1)
            assert current_span.get() is outer
        assert outer.children == [inner]
    assert (outer.counts, inner.counts) == ({"calls": 1}, {})
    assert inner.seconds > 0


@pytest.mark.parametrize(
    ("error", "told"),
    [(ValueError("no"), "ValueError: no"), (asyncio.CancelledError(), "cancelled"), (GeneratorExit(), "cancelled")],
)
def test_a_span_tells_how_it_broke_off(error: BaseException, told: str) -> None:
    made: list[Span] = []

    def breaks_off() -> None:
        with span("work") as here:
            made.append(here)
            raise error

    with pytest.raises(type(error)):
        breaks_off()
    assert made[0].error == told
    assert made[0].seconds > 0


def test_tokens_are_wanted_only_by_who_listens_and_asks() -> None:
    heard: list[object] = []
    assert not listening_to_tokens()
    with with_tokens():
        assert not listening_to_tokens()
        with listener(heard.append):
            assert listening_to_tokens()
            with undertone():
                assert not listening_to_tokens()
                emit(TextDelta("draft"))
                emit(TokensWritten((("draft", 0.5),)))
            assert listening_to_tokens()
            with with_tokens(False):
                assert not listening_to_tokens()
            with listener(None):
                assert not listening_to_tokens()
    with listener(heard.append):
        assert not listening_to_tokens()
    assert heard == []
