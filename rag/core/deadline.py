"""How long the work at hand may still take, for whoever waits or tries again on its behalf."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_END: ContextVar[float | None] = ContextVar("graft_deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """What runs in this block has ``seconds``, or less if there was an earlier end. It is told so; whoever set the time also keeps it."""
    end = time.monotonic() + seconds
    outer = _END.get()
    token = _END.set(end if outer is None else min(end, outer))
    try:
        yield
    finally:
        _END.reset(token)


def remaining() -> float | None:
    """Seconds that are left, not below 0; None if nobody set an end."""
    end = _END.get()
    return None if end is None else max(0.0, end - time.monotonic())
