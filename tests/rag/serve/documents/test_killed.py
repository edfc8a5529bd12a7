"""A server that is killed: what was sent is committed or absent, and the next run cleans up after it."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import httpx
import pytest

from rag.serve.documents.spool import Spool
from retrievers.corpus import Corpus
from tests.rag.serve.documents.parts import form, serve

HEAD = b"POST /v1/documents HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 900000\r\n\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="file"; filename="half.md"\r\n\r\n'


@pytest.mark.parametrize("moment", ["upload", "indexing"])
def test_sigkill(tmp_path: Path, moment: str) -> None:
    process, port = serve(tmp_path, batch_passages=10)
    corpus = Corpus.open(tmp_path / "corpus")
    try:
        if moment == "upload":
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(HEAD + PART + b"Suits last. " * 20_000)
                while not any(path.stat().st_size > 100_000 for path in tmp_path.glob("spool/run-*/*")):
                    time.sleep(0.01)
                process.kill()
                process.wait()
        else:
            rows = b"id,text\n" + b"".join(b"%d,row %d\n" % (number, number) for number in range(5_000))
            assert httpx.post(f"http://127.0.0.1:{port}/v1/documents", files=form(("t.csv", rows))).status_code == 202
            while len(list(corpus.documents())) < 200:
                time.sleep(0.005)
            process.kill()
            process.wait()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    assert list(tmp_path.glob("spool/run-*/*"))
    Spool(tmp_path / "spool").close()
    assert not list(tmp_path.glob("spool/run-*"))
    corpus.verify()
    held = list(corpus.documents())
    assert len(held) % 10 == 0  # whole commits
    assert (len(held) == 0) == (moment == "upload")
    assert all(record.passages == 1 for record in held)
    assert corpus.add([]).added == 0  # nobody holds the lock
    corpus.close()
