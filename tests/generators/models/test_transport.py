"""What comes over the wire, good and bad, at a socket of our own."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable

import httpx
import pytest

from generators.models.transport import Transport

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def asked(answer: Answer, use: Callable[[httpx.AsyncClient, str], Awaitable[None]], idle: float = 2.0) -> None:
    """Run ``use`` with a client and the address of a server that speaks by ``answer``."""

    async def go() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = Transport(httpx.create_ssl_context(), idle)
        async with httpx.AsyncClient(transport=transport, timeout=2.0) as client:
            await asyncio.wait_for(use(client, address), 70)
        server.close()

    asyncio.run(go())


async def _request(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n", b""])
def test_what_is_no_answer_is_a_transport_error(said: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(said)
        writer.close()

    async def use(client: httpx.AsyncClient, address: str) -> None:
        with pytest.raises(httpx.TransportError):
            await client.post(address, json={})

    asked(answer, use)


def test_pieces_arrive_as_they_come_and_leaving_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await writer.drain()
        while await reader.read(100):  # what is left of the request; b"" when the caller hangs up
            pass
        gone.set()
        writer.close()

    async def use(client: httpx.AsyncClient, address: str) -> None:
        async with client.stream("POST", address, json={}) as response:
            async for piece in response.aiter_bytes():
                assert piece == b"first"
                break
        await asyncio.wait_for(gone.wait(), 5)

    asked(answer, use)


def test_a_connection_is_used_again_and_no_cookie_is_kept() -> None:
    heads: list[tuple[int, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads.append((writer.get_extra_info("peername")[1], await _request(reader)))
                writer.write(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 2\r\n\r\n{}")
        except asyncio.IncompleteReadError:
            writer.close()

    async def use(client: httpx.AsyncClient, address: str) -> None:
        for _ in range(3):
            async with httpx.AsyncClient(transport=client._transport) as fresh:  # httpx's own jar is the client's, not the transport's
                assert (await fresh.send(fresh.build_request("GET", address))).json() == {}
                fresh._transport = httpx.AsyncHTTPTransport()  # so that closing this client leaves the connection open

    asked(answer, use)
    assert len({port for port, _ in heads}) == 1
    assert not [head for _, head in heads if b"cookie" in head.lower()]


PROGRAM = """
import asyncio, gc, httpx, sys
from generators.models.transport import Transport
from rag.core.sync import run_sync

clients = []

async def ask():
    clients.append(httpx.AsyncClient(transport=Transport(httpx.create_ssl_context(), 60.0)))
    print((await clients[-1].get(sys.argv[2])).text)

async def drop():
    await ask()
    clients.clear()
    gc.collect()
    await asyncio.sleep(0.05)

if sys.argv[1] == "background":
    run_sync(ask())
else:
    asyncio.run(drop() if sys.argv[1] == "dropped" else ask())
"""


@pytest.mark.parametrize("how", ["background", "own", "dropped"])
def test_a_program_that_closes_nothing_ends_without_a_word(how: str) -> None:
    hung_up = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        await reader.read()
        hung_up.set()
        writer.close()

    async def use(client: httpx.AsyncClient, address: str) -> None:
        command = [sys.executable, "-c", PROGRAM, how, address]
        ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "hi\n", "")
        await asyncio.wait_for(hung_up.wait(), 5)

    asked(answer, use)
