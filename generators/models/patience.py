"""How long a service waits for its model server, and how often it tries."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields

from rag.core.errors import InputError


@dataclass(frozen=True)
class Patience:
    """Seconds, but for ``misses`` and ``deaths``."""

    start: float = 600.0
    """From its start until it is healthy."""
    check: float = 5.0
    """Between two looks at its health."""
    answer: float = 10.0
    """For the answer to such a look."""
    misses: int = 3
    """Looks in a row without an answer, after which it is taken for hung."""
    term: float = 15.0
    """From SIGTERM to SIGKILL."""
    pause: float = 1.0
    """Between the first death and the next start; it doubles with each further one."""
    longest_pause: float = 60.0
    deaths: int = 5
    """Deaths within ``window`` with which it is given up."""
    window: float = 3600.0
    settled: float = 300.0
    """Of health, after which earlier deaths are forgotten."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not value > 0:
                raise InputError(f"{limit.name} must be more than 0, not {value!r}")


class Deaths:
    """Says how long to wait after a death of the server. ``chance`` gives numbers in [0, 1)."""

    def __init__(
        self, patience: Patience, clock: Callable[[], float] = time.monotonic, chance: Callable[[], float] = random.random
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._chance = chance
        self._times: deque[float] = deque()

    def pause(self, healthy: float) -> float | None:
        """Seconds before the next start, at random from the half to the whole of a time that doubles; None: there were too many.

        The server that died had been ``healthy`` for so many seconds.
        """
        now = self._clock()
        if healthy >= self._patience.settled:
            self._times.clear()
        self._times.append(now)
        while self._times[0] < now - self._patience.window:
            self._times.popleft()
        if len(self._times) >= self._patience.deaths:
            return None
        whole = min(self._patience.longest_pause, self._patience.pause * 2.0 ** (len(self._times) - 1))
        return whole * (1 + self._chance()) / 2
