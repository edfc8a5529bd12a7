"""A model server that does not answer is left alone for a while, instead of having every caller wait for its retries."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from rag.core.errors import InputError
from rag.serve.errors import RequestError

_LONGEST = 60.0


class Breaker:
    """Open after ``failures`` in a row: requests get 503 at once. After ``pause`` seconds one of them is let through to try; if that fails
    too, the pause doubles, up to a minute. A success closes it. (The circuit breaker of Nygard, Release It!, 2007.)"""

    def __init__(self, failures: int = 5, pause: float = 2.0, clock: Callable[[], float] = time.monotonic) -> None:
        if failures < 1:
            raise InputError(f"failures is at least 1, not {failures!r}")
        if not pause > 0:
            raise InputError(f"pause is a number of seconds above 0, not {pause!r}")
        self._allowed = failures
        self._first = pause
        self._clock = clock
        self._failed = 0
        self._pause = pause
        self._until: float | None = None
        """When one may try again; None: closed."""

    @property
    def open(self) -> bool:
        """Whether requests are turned away now."""
        return self._until is not None and self._clock() < self._until

    def check(self) -> None:
        """Raises `RequestError` (503 with ``Retry-After``) while it is open. Where the pause is over, this caller is the one that tries,
        and the next wait another pause."""
        if self._until is None:
            return
        left = self._until - self._clock()
        if left > 0:
            seconds = max(1, math.ceil(left))
            raise RequestError(
                503,
                f"the language model does not answer at the moment; try again in {seconds} s",
                type="server_error",
                code="model_unavailable",
                retry_after=seconds,
            )
        self._until = self._clock() + self._pause

    def succeeded(self) -> None:
        """The model answered."""
        self._failed, self._pause, self._until = 0, self._first, None

    def failed(self) -> None:
        """It did not."""
        self._failed += 1
        if self._until is not None:
            self._pause = min(2 * self._pause, _LONGEST)
        if self._until is not None or self._failed >= self._allowed:
            self._until = self._clock() + self._pause
