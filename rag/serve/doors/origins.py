"""What keeps a stranger's web page from using the server through its visitor's browser: names, origins, and headers on every answer."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.websockets import WebSocketClose

from rag.core.errors import InputError
from rag.serve.doors.scopes import route_path
from rag.serve.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)

_PRIVATE = ("/v1/", "/v2/")
"""Where questions, answers and documents are."""
_OWN_SITES = frozenset({b"same-origin", b"none"})
"""Of Sec-Fetch-Site: our own page, or nobody's (an address that a person typed)."""
_METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")
_EXPOSED = ("Retry-After", "X-Request-Id")
_PORTS = {"http": 80, "https": 443}
_PLACE = r"(?P<name>[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
_HOST = re.compile(_PLACE, re.IGNORECASE)
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_PLACE}", re.IGNORECASE)


class SecurityHeaders:
    """Adds to every response what tells a browser to guess nothing, tell nobody, keep nothing and run only our own script."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and complete the answer's headers."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        private = route_path(scope).startswith(_PRIVATE)

        async def complete(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", [])
                headers = MutableHeaders(scope=message)
                headers["X-Content-Type-Options"] = "nosniff"
                headers["Referrer-Policy"] = "no-referrer"
                if private:
                    headers["Cache-Control"] = "no-store"
                kind = headers.get("content-type", "").partition(";")[0].strip().lower()
                if kind in ("text/html", "application/xhtml+xml"):
                    headers["Content-Security-Policy"] = CONTENT_POLICY
            await send(message)

        await self.app(scope, receive, complete)


class Hosts:
    """Answers 421 to a Host header with a foreign name: a page that has its own name resolve to our address (DNS rebinding) counts as our
    origin for its visitor's browser, but sends its own name.

    Allowed are the names of loopback, ``bind`` (the address that the server listens on), ``allowed`` (names without a port; "*" allows
    every name), and the numeric address that the connection came in at, which no rebound name equals. Raises `InputError` for what is no
    name.
    """

    def __init__(self, app: ASGIApp, bind: str = "127.0.0.1", allowed: Iterable[str] = ()) -> None:
        self.app = app
        given = tuple(allowed)
        self._any = "*" in given
        self._names = frozenset(_checked_name(name) for name in (*LOOPBACK, bind, *given) if name != "*")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 421, or hand on."""
        if scope["type"] == "lifespan" or self._any or self._knows(scope):
            await self.app(scope, receive, send)
            return
        named = b", ".join(_values(scope, b"host")).decode("latin-1")[:100]
        error = RequestError(
            421,
            f"this server does not answer to the host '{named}'; who runs it can allow the name when it is started",
            code="misdirected_request",
        )
        await _refuse(error, scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        place = _own_place(scope)
        return place is not None and (place.name in self._names or place.name == _address(scope))


class Origins:
    """Closed to other origins: what changes or computes something (all but GET and HEAD, and everything below /v1 and /v2) is 403 for a
    page that is neither our own (host and port as in the Host header) nor of ``allowed``; only those pages may read an answer. A browser's
    cookies are never asked for.

    A page that loads an address as if it were a picture or a script sends no Origin. Browsers say of every request to this machine, or
    over TLS, how its page stands to the address (Sec-Fetch-Site, https://www.w3.org/TR/fetch-metadata/); elsewhere a key is asked for,
    which no picture sends.

    ``allowed`` are origins such as "https://app.example.org". Raises `InputError` for anything else, "*" and "null" too: without a key,
    they would open the server to every page that its user visits.
    """

    def __init__(self, app: ASGIApp, allowed: Iterable[str] = ()) -> None:
        self._allowed = frozenset(_checked_origin(origin) for origin in allowed)
        self._app = CORSMiddleware(
            app,
            allow_origins=self._allowed,
            allow_methods=_METHODS,
            allow_headers=("*",),  # clients send headers of their own, such as x-stainless-os
            allow_private_network=True,  # the origin is on the list, wherever its page comes from
            expose_headers=_EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 or a preflight, or hand on."""
        if scope["type"] != "lifespan" and (error := self._refusal(scope)):
            await _refuse(error, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        given = _values(scope, b"origin")
        method = scope.get("method", "websocket")
        wanted = _values(scope, b"access-control-request-method") if method == "OPTIONS" else []
        private = route_path(scope).startswith(_PRIVATE)
        if not given:
            sites = _values(scope, b"sec-fetch-site") if private else []
            return None if _OWN_SITES.issuperset(sites) else _foreign("another site")
        if method in ("GET", "HEAD") and not private and len(given) == 1:
            return None
        origin = given[0].decode("latin-1")
        if len(given) > 1 or not (origin in self._allowed or (not wanted and _is_own(origin, scope))):
            return _foreign(f"'{origin[:100]}'")
        if wanted and wanted[0].decode("latin-1") not in _METHODS:
            return RequestError(403, f"pages of other origins may use {', '.join(_METHODS)}", type="permission_error", code="cors_method")
        return None


class _Place(NamedTuple):
    name: str
    port: int | None


def _foreign(whose: str) -> RequestError:
    return RequestError(
        403,
        f"this server does not take requests from pages of {whose}; who runs it can allow the origin when it is started",
        type="permission_error",
        code="origin_not_allowed",
    )


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for header, value in scope["headers"] if header == name]


async def _refuse(error: RequestError, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await WebSocketClose(1008, error.message[:100])(scope, receive, send)
        return
    await JSONResponse(error.body(), error.status, {"Vary": "Origin"})(scope, receive, send)


def _own_place(scope: Scope) -> _Place | None:
    """The Host header, if there is exactly one and it is one."""
    hosts = _values(scope, b"host")
    found = _HOST.fullmatch(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
    return None if found is None else _place(found)


def _place(found: re.Match[str]) -> _Place | None:
    name, port = found["name"].lower(), found["port"]
    if name.startswith("["):
        try:
            name = _numeric(name[1:-1])
        except ValueError:
            return None
    return _Place(name, None if port is None else int(port))


def _is_own(origin: str, scope: Scope) -> bool:
    found, host = _ORIGIN.fullmatch(origin), _own_place(scope)
    place = None if found is None else _place(found)
    if found is None or place is None or host is None:
        return False
    # A proxy that ends TLS leaves us to be asked in http by a page of https: a port that is not named is the one of the page's scheme.
    usual = _PORTS.get(found["scheme"].lower())
    return usual is not None and place.name == host.name and (place.port or usual) == (host.port or usual)


def _address(scope: Scope) -> str | None:
    """Where the connection came in, as a Host header names it; None for a name or a socket in the file system."""
    try:
        return _numeric(scope["server"][0])
    except (KeyError, TypeError, ValueError):
        return None


def _numeric(address: str) -> str:
    parsed = ipaddress.ip_address(address)
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or f"[{parsed}]")


def _checked_name(name: str) -> str:
    try:
        return _numeric(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        found = _HOST.fullmatch(name)
    if found is None or found["port"] is not None or name.startswith("["):
        raise InputError(f"{name[:100]!r} is no name of a host: give one such as rag.example.org, without scheme or port, or '*'")
    return name.lower()


def _checked_origin(origin: str) -> str:
    found = _ORIGIN.fullmatch(origin)
    place = None if found is None else _place(found)
    if found is None or place is None:
        raise InputError(f"{origin[:100]!r} is no origin: give each as a browser sends it, such as https://app.example.org, without a path")
    scheme = found["scheme"].lower()
    named = place.port is not None and place.port != _PORTS.get(scheme)
    return f"{scheme}://{place.name}" + (f":{place.port}" if named else "")
