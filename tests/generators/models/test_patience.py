"""When a server that died is started anew, and when no more."""

from __future__ import annotations

from dataclasses import fields

import pytest

from generators.models.patience import Deaths, Patience
from rag.core.errors import InputError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_double_up_to_the_longest_with_jitter() -> None:
    patience = Patience(pause=2.0, longest_pause=10.0, deaths=6)
    slow, fast = Deaths(patience, Clock(), lambda: 1.0), Deaths(patience, Clock(), lambda: 0.0)
    assert [slow.pause(0.0) for _ in range(6)] == [2.0, 4.0, 8.0, 10.0, 10.0, None]
    assert [fast.pause(0.0) for _ in range(6)] == [1.0, 2.0, 4.0, 5.0, 5.0, None]
    pauses = {Deaths(patience).pause(0.0) for _ in range(20)}
    assert len(pauses) > 10
    assert all(pause is not None and 1.0 <= pause <= 2.0 for pause in pauses)


def test_deaths_outside_of_the_window_do_not_count() -> None:
    clock = Clock()
    deaths = Deaths(Patience(pause=1.0, deaths=3, window=60.0), clock, lambda: 1.0)
    given = []
    for _ in range(6):
        given.append(deaths.pause(0.0))
        clock.now += 40.0
    assert given == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    clock.now -= 39.0
    assert deaths.pause(0.0) is None


def test_a_healthy_time_forgets_what_was_before() -> None:
    deaths = Deaths(Patience(pause=1.0, deaths=3, settled=30.0), Clock(), lambda: 1.0)
    assert [deaths.pause(healthy) for healthy in (0.0, 29.0, 30.0, 0.0, 0.0)] == [1.0, 2.0, 1.0, 2.0, None]


@pytest.mark.parametrize("name", [field.name for field in fields(Patience)])
def test_limits_are_positive(name: str) -> None:
    for value in (0, -1.0, float("nan")):
        with pytest.raises(InputError, match=f"{name} must be more than 0"):
            Patience(**{name: value})
