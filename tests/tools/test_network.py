from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import httpx
import pytest

from rag.core.errors import InputError, RunError
from tools.network import Pinned, acheck_public, check_address, check_public, is_public

PRIVATE = [
    "http://127.0.0.1/",
    "http://127.8.9.1:8080/",
    "http://10.0.0.7/",
    "http://172.16.5.4/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://100.100.100.200/",  # metadata at Alibaba
    "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/",  # Azure's own
    "http://0.0.0.0/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::1]/",
    "http://[::]/",
    "http://[fe80::1]/",
    "http://[fe80::1%25eth0]/",
    "http://[fd00:ec2::254]/",  # metadata at Amazon
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[::ffff:127.0.0.1]/",  # an IPv4 address in IPv6's clothes
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::127.0.0.1]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::1]/",
    "http://localhost/",
    "http://LOCALHOST.:80/",
    "http://me.localhost/",
    "http://127。0。0。1/",  # full stops of Chinese and Japanese text
]
ODD = [
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://127.1/",
    "http://0/",
    "http://1.2.3.4.5/",
    "http://①②⑦.0.0.1/",
    "http://%31%32%37.0.0.1/",
    "http://ex\u200bample.com/",
    "http://user@example.com/",
    "http://example.com@127.0.0.1/",
    "http://:secret@example.com/",
    "http://@example.com/",
    "http://example.com\\@127.0.0.1/",
    "http://example.com /",
    "http://example.com\r\nX: y/",
    "http://example.com\x00/",
    "http://example.com:0/",
    "http://example.com:99999/",
    "http://example.com:port/",
    "http:///path",
    "http://[::1/",
    "example.com",
    "//example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "gopher://example.com/",
    "javascript:alert(1)",
    "",
]


def answering(*addresses: str) -> Any:
    """A lookup that gives these, and counts how often it was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(f"{host}:{port}")
        return addresses

    resolve.asked = asked  # type: ignore[attr-defined]
    return resolve


@pytest.mark.parametrize("url", PRIVATE)
def test_an_address_that_is_not_public_is_refused_without_a_lookup(url: str) -> None:
    with pytest.raises(InputError, match="not a public address"):
        check_address(url)


@pytest.mark.parametrize("url", PRIVATE)
def test_it_is_reached_where_its_owner_allows_it(url: str) -> None:
    assert str(check_address(url, allow_private=True)).startswith("http://")


@pytest.mark.parametrize("url", ODD)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_parsers_may_read_in_two_ways_is_refused_always(url: str, allow_private: bool) -> None:
    with pytest.raises(InputError) as raised:
        check_address(url, allow_private=allow_private)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", [None, 5, b"http://example.com/", ["http://example.com/"]])
def test_what_is_no_text_is_refused(url: Any) -> None:
    with pytest.raises(InputError, match="an address is text"):
        check_address(url)


@pytest.mark.parametrize("url", ["https://example.com", "http://8.8.8.8:8080/x?q=1", "https://[2606:4700::1111]/", "https://例え.jp/"])
def test_a_public_address_passes(url: str) -> None:
    assert check_address(url).scheme in ("http", "https")


def test_the_words_of_an_error_hold_no_password() -> None:
    with pytest.raises(InputError) as raised:
        check_address("http://me:secret@exam ple.com/?key=secret")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "169.254.169.254", "fe80::1", "fe80::1%eth0", "not an address", ""])
def test_a_name_of_a_private_address_is_refused(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(InputError, match=r"'evil\.example\.com' (is at .*, which is not a public address|has no address)"):
        asyncio.run(acheck_public("https://evil.example.com/", answering(address)))


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(InputError, match=r"is at 127\.0\.0\.1"):
        asyncio.run(acheck_public("https://evil.example.com/", answering("8.8.8.8", "127.0.0.1")))


def test_a_name_without_an_address_is_refused() -> None:
    with pytest.raises(InputError, match="has no address"):
        asyncio.run(acheck_public("https://example.com/", answering()))


def test_a_name_is_looked_up_with_its_port() -> None:
    resolve = answering("8.8.8.8", "2606:4700::1111")
    for url in ("https://example.com/", "http://example.com/", "http://example.com:8080/"):
        assert asyncio.run(acheck_public(url, resolve)) == ("8.8.8.8", "2606:4700::1111")
    assert resolve.asked == ["example.com:443", "example.com:80", "example.com:8080"]


def test_the_blocking_twin_and_a_host_that_cannot_be_found() -> None:
    assert check_public("https://8.8.8.8/") == ("8.8.8.8",)
    with pytest.raises(RunError, match=r"'no-such-host\.invalid' cannot be found"):
        check_public("https://no-such-host.invalid/")


# -- the connection goes to what was checked ------------------------------------------------------------------------------------------


class Recorder(httpx.AsyncBaseTransport):
    """Stands in for the network; ``down`` are addresses that refuse."""

    def __init__(self, *down: str) -> None:
        self.down = down
        self.requests: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if request.url.host in self.down:
            raise httpx.ConnectError("refused")
        return httpx.Response(200, text="ok")


def fetched(inner: httpx.AsyncBaseTransport, resolve: Any, url: str, **options: Any) -> httpx.Response:
    async def get() -> httpx.Response:
        transport = cast("httpx.AsyncBaseTransport", Pinned(inner, resolve))
        async with httpx.AsyncClient(transport=transport, **options) as client:
            return await client.get(url)

    return asyncio.run(get())


def test_the_connection_goes_to_the_address_and_tls_and_host_keep_the_name() -> None:
    inner, resolve = Recorder(), answering("2606:4700::1111")
    assert fetched(inner, resolve, "https://api.example.com:8443/v1?q=1").text == "ok"
    (sent,) = inner.requests
    assert str(sent.url) == "https://[2606:4700::1111]:8443/v1?q=1"
    assert sent.headers["host"] == "api.example.com:8443"
    assert sent.extensions["sni_hostname"] == "api.example.com"
    assert resolve.asked == ["api.example.com:8443"]  # looked up once: what was judged is what is used


def test_a_second_lookup_cannot_lead_elsewhere() -> None:
    """DNS rebinding: the first answer is public, the second is not."""
    answers = [["8.8.8.8"], ["127.0.0.1"]]

    async def rebinding(host: str, port: int) -> list[str]:
        return answers.pop(0)

    inner = Recorder()
    assert fetched(inner, rebinding, "http://evil.example.com/").text == "ok"
    assert [request.url.host for request in inner.requests] == ["8.8.8.8"]
    with pytest.raises(InputError, match="not a public address"):
        fetched(inner, rebinding, "http://evil.example.com/")
    assert len(inner.requests) == 1


def test_a_redirect_is_checked_as_well() -> None:
    class Redirecting(Recorder):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await super().handle_async_request(request)
            return httpx.Response(302, headers={"location": "http://169.254.169.254/latest/"})

    inner = Redirecting()
    with pytest.raises(InputError, match=r"169\.254\.169\.254"):
        fetched(inner, answering("8.8.8.8"), "http://example.com/", follow_redirects=True)
    assert len(inner.requests) == 1


def test_the_next_address_is_tried_where_one_does_not_answer() -> None:
    inner = Recorder("8.8.8.8")
    assert fetched(inner, answering("8.8.8.8", "8.8.4.4"), "http://example.com/").text == "ok"
    assert [request.url.host for request in inner.requests] == ["8.8.8.8", "8.8.4.4"]
    with pytest.raises(httpx.ConnectError):
        fetched(Recorder("8.8.8.8"), answering("8.8.8.8"), "http://example.com/")


@pytest.fixture
def local_server() -> Iterator[int]:
    """Answers with the Host header that it was sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.headers["Host"].encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("package", ["httpx", "httpx2"])
def test_a_real_connection_is_pinned_with_either_client(package: str, local_server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    client_package = pytest.importorskip(package, reason="comes with the extra 'mcp'")
    monkeypatch.setattr("tools.network.is_public", lambda address: address == "127.0.0.1")

    async def get() -> str:
        transport = Pinned(client_package.AsyncHTTPTransport(), answering("127.0.0.1"))
        async with client_package.AsyncClient(transport=transport) as client:
            answer = await client.get(f"http://api.example.com:{local_server}/")
            return str(answer.text)

    assert asyncio.run(get()) == f"api.example.com:{local_server}"
