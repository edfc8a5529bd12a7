"""From a request to files on disk, with every bound on how much, how many and how slowly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from email.message import Message
from typing import Any

from pydantic import Field, field_validator
from starlette.requests import Request

from rag.core.errors import InputError
from rag.serve.documents.form import Form, Upload
from rag.serve.documents.lines import Line, Parsed, write_lines
from rag.serve.documents.names import document_id
from rag.serve.documents.spool import Spool, full_disk
from rag.serve.errors import RequestError
from rag.serve.openai_types import Strict, parse
from retrievers.filters import check_key, check_scalar

_PIECE = 65_536
"""Bytes that are gathered before they are parsed and written, so that a body of single bytes costs no more than another."""


@dataclass(frozen=True)
class UploadLimits:
    """What one request may bring."""

    file_bytes: int = 32_000_000
    request_bytes: int = 64_000_000
    files: int = 100
    """Parts of a form; each must be a file."""
    json_bytes: int = 8_000_000
    """Of a request that brings documents as JSON, which is checked in memory."""
    idle_seconds: float = 30.0
    """Without a byte."""
    seconds: float = 300.0
    """From the first byte to the last."""

    def __post_init__(self) -> None:
        for limit in fields(self):
            if not getattr(self, limit.name) > 0:
                raise InputError(f"{limit.name} must be more than 0, not {getattr(self, limit.name)!r}")


class SentDocument(Strict):
    """One document of a JSON request."""

    id: str
    text: str = Field(min_length=1)
    title: str = Field("", max_length=1_000)
    metadata: dict[str, str | int | float | bool | None] = Field(default_factory=dict, max_length=100)

    @field_validator("metadata")
    @classmethod
    def _metadata(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {check_key(key, "metadata"): check_scalar(entry, f"metadata '{key[:80]}'") for key, entry in value.items()}

    def line(self) -> Line:
        """As it is kept. Raises `RequestError` (400) for a name or a text that the corpus cannot hold."""
        if not self.text.strip() or "\0" in self.text or "\0" in self.title:
            raise RequestError(400, f"the document {self.id[:80]!r} has a blank text or a NUL character", code="invalid_value")
        return Line(id=document_id(self.id), text=self.text, title=self.title, source="", metadata=self.metadata)


class SentDocuments(Strict):
    """``POST /v1/documents`` with JSON."""

    documents: list[SentDocument] = Field(min_length=1, max_length=1_000)


class Receiver:
    """Writes what requests bring to ``spool``, within ``limits``.

    Both methods raise `RequestError`: 400 for what is malformed, 408 for what comes too slowly, 413 for what is too large, 429 if the
    spool is full and 507 if the disk is; nothing stays on disk then.
    """

    def __init__(self, spool: Spool, limits: UploadLimits = UploadLimits()) -> None:
        self._spool = spool
        self._limits = limits

    async def files(self, request: Request) -> list[Upload]:
        """The files of a form."""
        form = Form(_boundary(request), self._spool, files=self._limits.files, file_bytes=self._limits.file_bytes)
        try:
            async for piece in self._pieces(request, self._limits.request_bytes):
                await asyncio.to_thread(form.feed, piece)
            return form.finish()
        except BaseException as error:
            form.abandon()
            if told := full_disk(error):
                raise told from error
            raise

    async def documents(self, request: Request) -> Parsed:
        """The documents of a JSON request."""
        body = bytearray()
        async for piece in self._pieces(request, self._limits.json_bytes):
            body += piece
        return await asyncio.to_thread(self._keep, bytes(body))

    def _keep(self, body: bytes) -> Parsed:
        lines = [sent.line() for sent in parse(SentDocuments, body).documents]
        seen: set[str] = set()
        for line in lines:
            if line.id in seen:
                raise RequestError(400, f"two documents have the id {line.id!r}; each needs one of its own", code="invalid_name")
            seen.add(line.id)
        try:
            file = self._spool.create(".jsonl")
            try:
                return write_lines(lines, file)
            except BaseException:
                file.remove()
                raise
        except OSError as error:
            raise full_disk(error) or error from error

    async def _pieces(self, request: Request, most: int) -> AsyncIterator[bytes]:
        """The body, in pieces of some size."""
        check_length(request, most)
        limits, end = self._limits, time.monotonic() + self._limits.seconds
        stream, gathered, size = aiter(request.stream()), bytearray(), 0
        while True:
            wait = min(limits.idle_seconds, end - time.monotonic())
            try:
                async with asyncio.timeout(wait):
                    piece = await anext(stream, None)
            except TimeoutError:
                reason = f"no byte came for {limits.idle_seconds:g} seconds, or the whole took longer than {limits.seconds:g}"
                raise RequestError(408, f"the upload was given up: {reason}", code="timeout") from None
            size += len(piece or b"")
            if size > most:
                raise _too_large(most)
            gathered += piece or b""
            if len(gathered) >= _PIECE or piece is None:
                yield bytes(gathered)
                gathered.clear()
            if piece is None:
                return


def check_length(request: Request, most: int) -> None:
    """Refuse a body that says that it is too large (413), or is compressed (415), before a byte of it is read."""
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise RequestError(415, "a compressed body is not read; send it without Content-Encoding", code="unsupported_media_type")
    length = request.headers.get("content-length")
    if length is not None and (not length.isascii() or not length.isdigit()):
        raise RequestError(400, "Content-Length is not a number", code="invalid_value")
    if length is not None and (len(length) > 18 or int(length) > most):
        raise _too_large(most)


def _too_large(most: int) -> RequestError:
    return RequestError(413, f"the body is larger than {most:,} bytes; send it in parts", code="request_too_large")


def _boundary(request: Request) -> bytes:
    message = Message()
    message["Content-Type"] = request.headers.get("content-type", "")
    boundary = message.get_param("boundary")
    if not isinstance(boundary, str) or not boundary.isascii() or not 1 <= len(boundary) <= 70:
        raise RequestError(400, "multipart/form-data needs a boundary of 1 to 70 ASCII characters", code="invalid_form")
    return boundary.encode()
