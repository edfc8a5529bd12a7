from __future__ import annotations

from contextlib import suppress

import pytest

from rag.core.errors import InputError
from rag.serve.breaker import Breaker
from rag.serve.errors import RequestError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def refused(breaker: Breaker) -> int | None:
    with suppress(RequestError):
        breaker.check()
        return None
    with pytest.raises(RequestError) as error:
        breaker.check()
    assert (error.value.status, error.value.code) == (503, "model_unavailable")
    return error.value.retry_after


def test_it_opens_after_failures_in_a_row_and_one_caller_tries_again() -> None:
    clock = Clock()
    breaker = Breaker(3, 2.0, clock)
    for _ in range(2):
        breaker.failed()
        assert refused(breaker) is None
    breaker.succeeded()
    for _ in range(2):
        breaker.failed()
        assert refused(breaker) is None
    breaker.failed()
    assert breaker.open
    assert refused(breaker) == 2
    clock.now += 1.5
    assert refused(breaker) == 1
    clock.now += 1.0
    assert refused(breaker) is None  # the one that tries
    assert refused(breaker) == 2  # the next waits
    breaker.succeeded()
    assert not breaker.open
    assert refused(breaker) is None


def test_each_failed_try_doubles_the_pause_up_to_a_minute() -> None:
    clock = Clock()
    breaker = Breaker(1, 2.0, clock)
    breaker.failed()
    pauses = []
    for _ in range(7):
        pauses.append(refused(breaker))
        clock.now += pauses[-1] or 0
        assert refused(breaker) is None
        breaker.failed()
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    clock.now += 60
    breaker.check()
    breaker.succeeded()
    breaker.failed()
    assert refused(breaker) == 2


@pytest.mark.parametrize(("failures", "pause"), [(0, 1.0), (1, 0.0), (1, float("nan"))])
def test_settings_are_checked(failures: int, pause: float) -> None:
    with pytest.raises(InputError):
        Breaker(failures, pause)
