"""All doors in front of one application, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag.serve.doors.keys import Keys, Ring
from rag.serve.doors.origins import Hosts, Origins, SecurityHeaders
from rag.serve.doors.rates import Addresses, Limiter, Rates

if TYPE_CHECKING:
    from fastapi import FastAPI

    from rag.serve.settings import Doors


def lock(app: FastAPI, doors: Doors) -> None:
    """Put ``doors`` in front of ``app``; the last one that is added stands outermost.

    Starlette makes them when the server starts: what is wrong is told now. Raises `InputError` and `ConfigError` as they do.
    """
    Origins(app, doors.origins)
    if doors.bind is not None:
        Hosts(app, doors.bind, doors.hosts)
    if doors.per_minute is not None:
        app.add_middleware(Rates, limiter=Limiter(doors.per_minute, doors.burst), addresses=Addresses(doors.proxies))
    if doors.locked:
        app.add_middleware(Keys, ring=Ring(doors.keys, doors.secret))
    app.add_middleware(Origins, allowed=doors.origins)
    if doors.bind is not None:
        app.add_middleware(Hosts, bind=doors.bind, allowed=doors.hosts)
    app.add_middleware(SecurityHeaders)
