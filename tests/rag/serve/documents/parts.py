"""A small server of the documents' routes over a corpus without an encoder, and files that mean harm."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from rag.serve.documents.parsing import Parser, ParserLimits
from rag.serve.documents.receiving import Receiver, UploadLimits
from rag.serve.documents.shelf import Shelf
from rag.serve.documents.spool import Spool
from rag.serve.errors import RequestError
from rag.serve.jobs import Jobs
from rag.serve.routes import documents, jobs
from retrievers.corpus import Corpus

_SERVER = """
import json, sys, uvicorn
from pathlib import Path
from tests.rag.serve.documents.parts import kit

server = uvicorn.Server(uvicorn.Config(kit(Path(sys.argv[1]), **json.loads(sys.argv[2])).app, port=0, log_level="warning"))
started = server.startup
async def startup(sockets=None):
    await started(sockets)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
server.startup = startup
server.run()
"""

ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Kit:
    """What a server of documents is made of."""

    corpus: Corpus
    spool: Spool
    shelf: Shelf
    jobs: Jobs
    app: FastAPI

    def ids(self) -> list[str]:
        """What the corpus holds."""
        return [record.id for record in self.corpus.documents()]

    def text(self, id: str) -> str:
        """The passages of a document as one text."""
        return "\n".join(passage.text for passage in self.corpus.each_passage(id))


def kit(
    tmp_path: Path,
    *,
    uploads: UploadLimits = UploadLimits(),
    parsing: ParserLimits = ParserLimits(),
    jobs_options: dict[str, Any] | None = None,
    **shelf_options: Any,
) -> Kit:
    """A server over the corpus in ``tmp_path``, which is made if it is not there."""
    folder = tmp_path / "corpus"
    corpus = Corpus.open(folder) if Corpus.exists(folder) else Corpus.create(folder, encoder=None)
    spool, shelf, queue = Spool(tmp_path / "spool"), Shelf(corpus, **shelf_options), Jobs(**(jobs_options or {}))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await queue.close()
        shelf.close()
        spool.close()
        corpus.close()

    app = FastAPI(lifespan=lifespan)
    app.include_router(documents.routes(shelf, queue, Receiver(spool, uploads), Parser(spool, parsing)))
    app.include_router(jobs.routes(queue))

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestError)
        return JSONResponse(error.body(), error.status, error.headers)

    app.add_exception_handler(RequestError, answer)
    return Kit(corpus, spool, shelf, queue, app)


def serve(tmp_path: Path, **options: Any) -> tuple[subprocess.Popen[str], int]:
    """A process that serves `kit`, and its port."""
    command = [sys.executable, "-c", _SERVER, str(tmp_path), json.dumps(options)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def ended(http: Any, reply: Any, seconds: float = 60) -> dict[str, Any]:
    """The job that ``reply`` announced, once it has ended."""
    assert reply.status_code == 202, reply.text
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        job: dict[str, Any] = http.get(reply.headers["location"]).json()
        if job["status"] in ENDED:
            return job
        time.sleep(0.02)
    raise AssertionError(f"the job did not end: {job}")


def form(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    """Files for `httpx`."""
    return [("file", (name, data)) for name, data in files]


def docx(body: bytes, head: bytes = b"") -> bytes:
    """A Word file whose main part is ``head``, then a document with ``body``."""
    import docx as word

    plain, target = io.BytesIO(), io.BytesIO()
    word.Document().save(plain)
    space = b'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'
    main = b'<?xml version="1.0"?>' + head + b"<w:document " + space + b"><w:body>" + body + b"</w:body></w:document>"
    with zipfile.ZipFile(plain) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, main if entry.filename == "word/document.xml" else old.read(entry))
    return target.getvalue()


def paragraph(text: bytes) -> bytes:
    """A paragraph of a Word file."""
    return b"<w:p><w:r><w:t>" + text + b"</w:t></w:r></w:p>"


def zip_bomb() -> bytes:
    """100 MB in some 100 KB."""
    return docx(paragraph(b"A" * 100_000_000))


def many_paragraphs(number: int) -> bytes:
    """A Word file that keeps to the reader's limits, and takes many times its unpacked size in memory."""
    return docx(b"".join(paragraph(b"%d" % (n * 7919 % 1_000_003)) for n in range(number)))


def billion_laughs() -> bytes:
    """Entities of entities of entities."""
    entities = b"".join(b'<!ENTITY l%d "%s">' % (n + 1, b"&l%d;" % n * 10) for n in range(9))
    return docx(paragraph(b"&l9;"), b'<!DOCTYPE x [<!ENTITY l0 "lol">' + entities + b"]>")


def pdf(*, script: str = "", circular: bool = False) -> bytes:
    """A PDF of one page that says "Suits last 90 minutes", made by hand."""
    text = zlib.compress(b"BT /F1 12 Tf 72 700 Td (Suits last 90 minutes) Tj ET")
    open_action = f" /OpenAction << /S /JavaScript /JS ({script}) >>" if script else ""
    objects = [
        f"<< /Type /Catalog /Pages 2 0 R{open_action} >>".encode(),
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Contents 4 0 R /Resources << /Font << /F1 5 0 R >> >> >>",
        b"<< /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (len(text), text),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    if circular:
        objects[1] = b"<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>"
    out, offsets = bytearray(b"%PDF-1.4\n"), []
    for number, content in enumerate(objects, 1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    start = len(out)
    out += b"xref\n0 6\n0000000000 65535 f \n" + b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    previous = b" /Prev %d" % start if circular else b""
    out += b"trailer\n<< /Size 6 /Root 1 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (previous, start)
    return bytes(out)
