"""How often a caller may ask: a bucket of tokens for each, filled at a steady rate."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from rag.core.errors import InputError
from rag.serve.doors.scopes import HEALTH, route_path
from rag.serve.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

MAX_CALLERS = 10_000
"""Callers that are remembered. Who was not heard of for longest is forgotten first, which gives them a full bucket."""

_ROUNDING = 1e-9

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Limiter:
    """``per_minute`` requests in the long run, ``burst`` at once (None: as many as in a minute), for each caller.

    ``clock`` gives seconds that never go back. Raises `InputError` for a rate that is not above 0 and finite, or a burst below 1.
    """

    def __init__(
        self,
        per_minute: float,
        burst: int | None = None,
        *,
        most: int = MAX_CALLERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (math.isfinite(per_minute) and per_minute > 0):
            raise InputError(f"requests per minute are a number above 0, not {per_minute}")
        self.burst = max(1, math.ceil(per_minute)) if burst is None else burst
        if self.burst < 1 or most < 1:
            raise InputError(f"a burst is 1 request or more, and so are the callers, not {self.burst} and {most}")
        self.per_minute = per_minute
        self._most = most
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> float:
        """Take a token. 0: there was one; else the seconds until there is one, and nothing was taken."""
        now, rate = self._clock(), self.per_minute / 60
        tokens, since = self._buckets.pop(caller, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - since) * rate)
        wait = 0.0 if tokens >= 1 - _ROUNDING else (1 - tokens) / rate
        self._buckets[caller] = (tokens if wait else max(0.0, tokens - 1), now)
        if len(self._buckets) > self._most:
            self._buckets.popitem(last=False)
        return wait

    def __len__(self) -> int:
        """How many callers are remembered."""
        return len(self._buckets)


class Addresses:
    """Whose address a request has. ``X-Forwarded-For`` is believed only as far as proxies of ``trusted`` (addresses or networks, such as
    "10.0.0.0/8") wrote it: anybody can send one. Raises `InputError` for what is no network."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        try:
            self._trusted = tuple(ipaddress.ip_network(network) for network in trusted)
        except ValueError as error:
            raise InputError(f"trusted proxies: {error}; give addresses or networks, such as 10.0.0.7 or 10.0.0.0/8") from None

    def of(self, scope: Scope) -> str:
        """The client's address; of IPv6 its /64, the whole of which one client usually has. "unknown" for a socket in the file system."""
        peer = _parsed((scope.get("client") or ("",))[0])
        if peer is None:
            return "unknown"
        for said in self._forwarded(scope):
            if not self._trusts(peer):
                break
            before = _parsed(said)
            if before is None:
                break
            peer = before
        return str(peer) if peer.version == 4 else str(ipaddress.ip_network((int(peer), 64), strict=False))

    def _forwarded(self, scope: Scope) -> list[str]:
        """What the proxies wrote, the last one's word first."""
        values = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return [said.strip() for said in reversed(",".join(values).split(","))]

    def _trusts(self, address: _Address) -> bool:
        return any(address in network for network in self._trusted)


class Rates:
    """Answers 429 with ``Retry-After`` to a caller that asks too often: a key, or without one an address. Health checks are not counted."""

    def __init__(self, app: ASGIApp, limiter: Limiter, addresses: Addresses | None = None) -> None:
        self.app = app
        self._limiter = limiter
        self._addresses = addresses or Addresses()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 429, or hand on."""
        if scope["type"] == "http" and not (scope["method"] == "GET" and route_path(scope) in HEALTH):
            wait = self._limiter.take(self._caller(scope))
            if wait:
                error = self._refusal(max(1, math.ceil(wait - _ROUNDING)))
                await JSONResponse(error.body(), error.status, error.headers)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _caller(self, scope: Scope) -> str:
        key: str | None = scope.get("state", {}).get("caller")
        return f"address {self._addresses.of(scope)}" if key is None else key  # an id has no space

    def _refusal(self, seconds: int) -> RequestError:
        return RequestError(
            429,
            f"more than {self._limiter.per_minute:g} requests a minute, or {self._limiter.burst} at once; try again in {seconds} s",
            type="rate_limit_error",
            code="rate_limit_exceeded",
            retry_after=seconds,
        )


def _parsed(address: str) -> _Address | None:
    """``address`` with or without a port; None if it is none. IPv4 that is written as IPv6 is IPv4."""
    bare = address[1:].partition("]")[0] if address.startswith("[") else address
    if bare.count(":") == 1:
        bare = bare.partition(":")[0]
    try:
        parsed = ipaddress.ip_address(bare)
    except ValueError:
        return None
    return parsed if parsed.version == 4 else parsed.ipv4_mapped or parsed
