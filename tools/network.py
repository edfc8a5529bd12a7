"""Addresses that a tool may reach: public ones, unless its owner says otherwise.

A tool's address may come from a description that somebody else wrote, and its server may be named by whoever answers the name's lookup.
So the name is looked up once, every address of it is judged, and the connection goes to an address that was judged: a second lookup
could answer differently (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Union

from rag.core.errors import InputError, RunError
from rag.core.sync import run_sync

if TYPE_CHECKING:
    import httpx

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port to the addresses of it, as text."""

_Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]

_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")  # parsers disagree about these: what one takes for the path, another takes for the host
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?")
_NUMERIC_END = re.compile(r"(?:^|\.)(?:\d+|0x[0-9a-f]*)\.?$")
_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")  # NAT64 (RFC 6052): an IPv4 address in the last 32 bits
_METADATA = ipaddress.IPv4Address("168.63.129.16")  # a public number, but inside Azure the host's own service
_TRIES = 3
"""Addresses of one name that are tried in turn."""


def check_address(url: str, *, allow_private: bool = False) -> httpx.URL:
    """Return ``url`` parsed, without looking its host up.

    Raises `InputError` unless it is http(s) with a plain host: no user or password, no backslash, space or control character, no number
    that is not a dotted IPv4 address (2130706433, 0x7f.1, 0177.0.0.1), and, unless ``allow_private``, no address that is not public.
    """
    import httpx

    if not isinstance(url, str):
        raise InputError(f"an address is text like https://api.example.com/v1, not {type(url).__name__}")
    if _UNSAFE.search(url):
        raise InputError(
            f"{_shown(url)!r} is no address: it holds a space, a backslash or a control character; write it like https://api.example.com/v1"
        )
    try:
        parsed = httpx.URL(url)
        port = parsed.port
    except (httpx.InvalidURL, ValueError) as error:
        raise InputError(f"{_shown(url)!r} is no address ({error}); write it like https://api.example.com/v1") from None
    host = parsed.raw_host.decode("ascii").lower()
    if parsed.scheme not in ("http", "https") or not host:
        raise InputError(f"{_shown(url)!r}: an address starts with http:// or https:// and names a host")
    if "@" in re.split(r"[/?#]", url.partition("//")[2], maxsplit=1)[0]:
        raise InputError(f"the address of {host} holds a user or password; leave it out and name the key's environment variable instead")
    if port is not None and not 1 <= port <= 65_535:
        raise InputError(f"the address of {host} names port {port}; ports are 1 to 65535")
    literal = _literal(host)
    if literal is None and (not _NAME.fullmatch(host) or _NUMERIC_END.search(host)):
        raise InputError(f"'{host}' is no host: write a name, an IPv4 address as four plain numbers, or an IPv6 address in brackets")
    if not allow_private:
        if literal is not None:
            _refuse(host, [str(literal)])
        if host.rstrip(".") == "localhost" or host.rstrip(".").endswith(".localhost"):
            _refuse(host, ["127.0.0.1"])
    return parsed


async def lookup(host: str, port: int) -> list[str]:
    """The addresses of ``host`` as the system knows them, each once. Raises `RunError` if there is none."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise RunError(f"the host '{host}' cannot be found ({error}); check its spelling and the network") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def acheck_public(url: str, resolve: Resolve | None = None) -> tuple[str, ...]:
    """The addresses behind ``url``, all of them public.

    Raises `InputError` if one of them is loopback, private, link-local (with the metadata services of clouds), multicast, reserved, or an
    IPv6 form of such an IPv4 address; or if `check_address` refuses the URL. Raises `RunError` if the host cannot be found.
    """
    parsed = check_address(url)
    host = parsed.raw_host.decode("ascii").lower()
    literal = _literal(host)
    if literal is not None:
        return (str(literal),)
    addresses = tuple(await (resolve or lookup)(host, parsed.port or {"http": 80}.get(parsed.scheme, 443)))
    _refuse(host, addresses)
    return addresses


def check_public(url: str) -> tuple[str, ...]:
    """`acheck_public`, blocking."""
    return run_sync(acheck_public(url))


def is_public(address: str) -> bool:
    """Whether ``address`` (IPv4 or IPv6 as text) belongs to a host on the open internet."""
    try:
        plain = _unmasked(ipaddress.ip_address(address))
    except ValueError:
        return False
    if plain.is_multicast or plain.is_reserved or plain.is_link_local or plain == _METADATA:
        return False
    return plain.is_global and not (isinstance(plain, ipaddress.IPv6Address) and plain.is_site_local)


def _refuse(host: str, addresses: Sequence[str]) -> None:
    private = [address for address in addresses if not is_public(address)]
    if private or not addresses:
        what = f"is at {private[0]}, which is not a public address" if private else "has no address"
        raise InputError(f"'{host}' {what}; tools reach public hosts only, unless allow_private is set for a service of your own")


def _literal(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _unmasked(address: _Address) -> _Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None) or address


def _shown(url: str) -> str:
    """``url`` for a message, without what may be a password in it or after it."""
    return re.sub(r"//[^/]*@", "//***@", url.partition("?")[0])[:100]


class Pinned:
    """An HTTP transport around ``inner`` that connects to an address it has checked itself, for every request, redirects included.

    The URL's host is replaced by the address; the Host header, the name in TLS and with it the certificate's check stay those of the
    name (the request extension "sni_hostname"). Serves httpx and httpx2, which call transports alike.
    """

    def __init__(self, inner: Any, resolve: Resolve | None = None) -> None:
        self._inner = inner
        self._resolve = resolve

    async def handle_async_request(self, request: Any) -> Any:
        """Send ``request``. Raises `InputError` for an address that is not public."""
        addresses = (await acheck_public(str(request.url), self._resolve))[:_TRIES]
        for address in addresses[:-1]:
            try:
                return await self._inner.handle_async_request(_pinned(request, address))
            except Exception as error:
                if type(error).__name__ not in ("ConnectError", "ConnectTimeout"):  # of httpx or of httpx2
                    raise
        return await self._inner.handle_async_request(_pinned(request, addresses[-1]))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()

    async def __aenter__(self) -> Pinned:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._inner.__aexit__(*error)


def _pinned(request: Any, address: str) -> Any:
    return type(request)(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )
