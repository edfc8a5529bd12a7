"""Contexts from a server: the same as from its store, or a `Miss` that says why; never a wrong number, and never a long wait."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load, save  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from generators.models.stitched.reader import Contexts  # noqa: E402
from rag.core.errors import ConfigError, CorpusMismatch, InputError  # noqa: E402
from rag.serve.contexts import contexts_app  # noqa: E402
from rag.serve.settings import Doors  # noqa: E402
from retrievers.context.encoded import Encoded  # noqa: E402
from retrievers.context.remote import RemoteContexts  # noqa: E402
from retrievers.context.store import ContextStore, Miss  # noqa: E402
from retrievers.context.wire import LABEL  # noqa: E402
from tests.retrievers.context.fake import MODEL, OTHER, FakeEncoder, built, contexts, same  # noqa: E402

IDS, TEXTS = (tuple(part) for part in zip(*contexts(4), strict=True))
SECRET = "graft_a-secret-that-is-long-enough"


class Counted(httpx.BaseTransport):
    """The server's application without a network; counts what it is asked, and may spoil what it answers."""

    def __init__(self, path: Path, **more: Any) -> None:
        self._inner = TestClient(contexts_app(ContextStore(path, ram_bytes=0), **more))._transport
        self.asked = 0
        self.spoil: Callable[[httpx.Response], httpx.Response] = lambda answer: answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        answer = self._inner.handle_request(request)
        return streamed(self.spoil(httpx.Response(answer.status_code, headers=answer.headers, content=answer.read())))


def streamed(answer: httpx.Response) -> httpx.Response:
    """As it comes over a connection, not yet read."""
    return httpx.Response(answer.status_code, headers=answer.headers, content=iter([answer.content]))


@pytest.fixture
def server(tmp_path: Path) -> Counted:
    built(tmp_path / "store", 4)
    return Counted(tmp_path / "store")


def remote(transport: httpx.BaseTransport, **more: Any) -> RemoteContexts:
    return RemoteContexts("http://localhost:8090/", more.pop("model", MODEL), transport=transport, **more)


@pytest.mark.parametrize("numbers", ["float16", "int8", "int4"])
def test_it_gives_what_the_store_gives_and_asks_once(tmp_path: Path, numbers: str) -> None:
    built(tmp_path / "store", 4, numbers)
    server = Counted(tmp_path / "store")
    shelf = remote(server)
    assert isinstance(shelf, Contexts)
    shelf.check()
    expected = ContextStore(tmp_path / "store", MODEL).get(IDS, TEXTS)
    for _ in range(2):
        found = shelf.get(IDS, TEXTS)
        assert all(
            isinstance(one, Encoded) and isinstance(two, Encoded) and same(one, two) for one, two in zip(found, expected, strict=True)
        )
    assert server.asked == 1 + 4
    shelf.close()


def test_absent_changed_and_damaged_are_told_apart(server: Counted, tmp_path: Path) -> None:
    shelf = remote(server)
    assert shelf.get(["nobody", IDS[1]], ["a text", "another text"]) == [Miss("nobody", "absent"), Miss(IDS[1], "changed")]
    for file in (tmp_path / "store" / "segments").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-1])
    (miss,) = shelf.get(IDS[:1], TEXTS[:1])
    assert isinstance(miss, Miss)
    assert (miss.reason, "500 (damaged)" in miss.detail) == ("damaged", True)
    with pytest.raises(InputError, match="1 ids and 2 texts"):
        shelf.get(["a"], ["b", "c"])


def test_contexts_of_another_model_are_never_taken(server: Counted) -> None:
    shelf = remote(server, model=OTHER)
    with pytest.raises(CorpusMismatch, match="another weights"):
        shelf.check()
    (miss,) = shelf.get(IDS[:1], TEXTS[:1])
    assert isinstance(miss, Miss)
    assert "another weights" in miss.detail
    assert len(shelf.ram) == 0


def flipped(answer: httpx.Response) -> httpx.Response:
    body = bytearray(answer.content)
    body[-5] ^= 4
    return httpx.Response(200, headers=answer.headers, content=bytes(body))


def with_tensors(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[httpx.Response], httpx.Response]:
    def spoil(answer: httpx.Response) -> httpx.Response:
        return httpx.Response(200, headers={LABEL: answer.headers[LABEL]}, content=save(change(load(answer.content))))

    return spoil


def with_label(**changed: Any) -> Callable[[httpx.Response], httpx.Response]:
    def spoil(answer: httpx.Response) -> httpx.Response:
        return httpx.Response(200, headers={LABEL: json.dumps(json.loads(answer.headers[LABEL]) | changed)}, content=answer.content)

    return spoil


SPOILT = {
    "a flipped bit": flipped,
    "cut": lambda answer: httpx.Response(200, headers={LABEL: answer.headers[LABEL]}, content=answer.content[:-7]),
    "a pickle": lambda answer: httpx.Response(200, headers={LABEL: answer.headers[LABEL]}, content=pickle.dumps([1])),
    "a page": lambda answer: httpx.Response(200, text="<html>"),
    "no label": lambda answer: httpx.Response(200, content=answer.content),
    "a label of another text": with_label(text="0" * 64),
    "a label without a checksum": with_label(sha256="none"),
    "a tensor more": with_tensors(lambda tensors: tensors | {"more": torch.zeros(1)}),
    "a tensor less": with_tensors(lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "values"}),
    "another type": with_tensors(lambda tensors: tensors | {"keys": tensors["keys"].float()}),
    "another shape": with_tensors(lambda tensors: tensors | {"keys": tensors["keys"].transpose(0, 1).contiguous()}),
    "no tokens": with_tensors(lambda tensors: tensors | {"tokens": tensors["tokens"][:0]}),
    "a redirect": lambda answer: httpx.Response(302, headers={"Location": "http://elsewhere/"}),
    "an error of a proxy": lambda answer: httpx.Response(502, text="bad gateway"),
    "too much": lambda answer: httpx.Response(200, headers={LABEL: answer.headers[LABEL]}, content=bytes(10_000_000)),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_not_right_is_a_miss_and_is_not_kept(server: Counted, what: str) -> None:
    shelf, server.spoil = remote(server), SPOILT[what]
    (miss,) = shelf.get(IDS[:1], TEXTS[:1])
    assert isinstance(miss, Miss)
    assert (miss.reason, "http://localhost:8090" in miss.detail) == ("damaged", True)
    assert len(shelf.ram) == 0
    server.spoil = lambda answer: answer
    assert isinstance(shelf.get(IDS[:1], TEXTS[:1])[0], Encoded)


def test_no_more_is_read_than_a_passage_can_take() -> None:
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        while True:
            read.append(1)
            yield bytes(100_000)

    shelf = remote(httpx.MockTransport(lambda _: httpx.Response(200, content=endless())))
    (miss,) = shelf.get(IDS[:1], TEXTS[:1])
    assert isinstance(miss, Miss)
    assert "more than the" in miss.detail
    assert len(read) < 5


def test_a_server_that_does_not_answer_is_waited_for_once() -> None:
    asked: list[int] = []

    def gone(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        raise httpx.ConnectError("connection refused")

    shelf = remote(httpx.MockTransport(gone))
    misses = [*shelf.get(IDS, TEXTS), *shelf.get(IDS, TEXTS)]
    assert all(isinstance(miss, Miss) and "connection refused" in miss.detail for miss in misses)
    assert {miss.reason for miss in misses if isinstance(miss, Miss)} == {"unreachable"}
    assert len(asked) == 1
    shelf._away_until = time.monotonic()
    shelf.get(IDS[:1], TEXTS[:1])
    assert len(asked) == 2
    with pytest.raises(ConfigError, match="does not answer"):
        shelf.check()


def test_a_slow_server_is_given_up() -> None:
    def slow() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.02)
            yield b"x"

    shelf = remote(httpx.MockTransport(lambda _: httpx.Response(200, content=slow())), seconds=0.1)
    started = time.monotonic()
    (miss,) = shelf.get(IDS[:1], TEXTS[:1])
    assert isinstance(miss, Miss)
    assert "not whole after 0.1 s" in miss.detail
    assert time.monotonic() - started < 1


def test_the_key_is_sent_and_never_told(tmp_path: Path) -> None:
    built(tmp_path / "store", 4)
    server = Counted(tmp_path / "store", doors=Doors(secret=SECRET))
    assert isinstance(remote(server, api_key=SECRET).get(IDS[:1], TEXTS[:1])[0], Encoded)
    (miss,) = remote(server, api_key="wrong-key").get(IDS[:1], TEXTS[:1])
    assert isinstance(miss, Miss)
    assert "401 (invalid_api_key)" in miss.detail
    assert "wrong-key" not in miss.detail
    with pytest.raises(ConfigError, match="answered 401"):
        remote(server).check()


def test_memory_is_bounded_and_what_was_encoded_here_is_kept_here(server: Counted) -> None:
    shelf = remote(server, ram_bytes=0)
    shelf.get(IDS[:1], TEXTS[:1])
    shelf.get(IDS[:1], TEXTS[:1])
    assert (server.asked, shelf.ram.bytes) == (2, 0)
    shelf = remote(server)
    (made,) = FakeEncoder().encode(["of this place"])
    shelf.keep("own", "of this place", made, 0.1)
    (found,) = shelf.get(["own"], ["of this place"])
    assert isinstance(found, Encoded)
    assert torch.allclose(found.values, made.values, atol=1e-2)
    assert server.asked == 2


@pytest.mark.parametrize(
    "url", ["shelf:8090", "ftp://shelf", "http://", "http://user:key@shelf", "http://shelf:x", "http://shelf/?a=1", ""]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(InputError, match="address of a server of contexts") as told:
        RemoteContexts(url, MODEL)
    assert "key@" not in str(told.value)


def test_a_server_of_something_else() -> None:
    for body in (b"{}", b"<html>", b'{"model": {"weights": 1}}', b'{"model": 3}'):
        transport = httpx.MockTransport(lambda _, body=body: httpx.Response(200, content=iter([body])))
        with pytest.raises(ConfigError, match="no server of contexts"):
            remote(transport).check()
    with pytest.raises(InputError, match="seconds"):
        remote(httpx.MockTransport(lambda _: httpx.Response(200)), seconds=0)
