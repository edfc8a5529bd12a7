"""A form with files (multipart/form-data), read piece by piece: what it holds goes to disk while it arrives."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from email.message import Message
from pathlib import PurePosixPath

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from rag.serve.documents.names import document_id
from rag.serve.documents.spool import Spool, SpoolFile
from rag.serve.errors import RequestError
from retrievers.readers import SUFFIXES

MAX_HEADERS = 8
MAX_HEADER = 4_096
"""Bytes of one line in the head of a part."""

_FIELD = "file"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that was sent: the id that its document gets, and where its bytes are."""

    id: str
    file: SpoolFile


class Form:
    """Takes the bytes of a form in pieces. Every part must be a file; ``files`` and ``file_bytes`` bound their number and size.

    `feed` and `finish` raise `RequestError` (400 for what is malformed, 413 for what is too large) and `OSError` if the disk is full.
    After that, and whenever the files are not wanted, call `abandon`.
    """

    def __init__(self, boundary: bytes, spool: Spool, *, files: int, file_bytes: int) -> None:
        self._spool = spool
        self._most = files
        self._largest = file_bytes
        self._uploads: list[Upload] = []
        self._file: SpoolFile | None = None
        self._name, self._value = bytearray(), bytearray()
        self._head: dict[str, str] = {}
        self._ended = self._abandoned = False
        self._lock = threading.Lock()  # a thread that still feeds must not make a file after the rest was removed
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._data,
                    "on_part_end": self._close,
                    "on_end": self._end,
                },
                max_header_count=MAX_HEADERS,
                max_header_size=MAX_HEADER,
            )
        except FormParserError as error:
            raise _malformed(error) from None

    def feed(self, data: bytes) -> None:
        """Take the next bytes. Blocks while they are written."""
        with self._lock:
            if self._abandoned:
                return
            try:
                self._parser.write(data)
            except FormParserError as error:
                raise _malformed(error) from None

    def finish(self) -> list[Upload]:
        """All files, after the last byte."""
        if not self._ended:
            raise RequestError(400, "the form ends before its last boundary", code="invalid_form")
        if not self._uploads:
            raise RequestError(400, f"the form holds no file; send at least one part named '{_FIELD}'", code="invalid_form")
        return self._uploads

    def abandon(self) -> None:
        """Delete what was written."""
        with self._lock:
            self._abandoned = True
            for upload in self._uploads:
                upload.file.remove()

    def _begin(self) -> None:
        if len(self._uploads) == self._most:
            raise RequestError(413, f"the form has more than {self._most:,} parts; send the rest in another", code="request_too_large")
        self._head.clear()

    def _header(self) -> None:
        try:
            name, value = self._name.decode("ascii").lower(), self._value.decode()
        except UnicodeDecodeError:
            raise RequestError(400, "the head of a part is not UTF-8", code="invalid_form") from None
        if name in self._head:
            raise RequestError(400, f"a part has the header '{name[:80]}' twice", code="invalid_form")
        self._head[name] = value
        self._name.clear()
        self._value.clear()

    def _open(self) -> None:
        id = document_id(_filename(self._head.get("content-disposition", "")))
        if any(upload.id == id for upload in self._uploads):
            raise RequestError(400, f"two files are called {id!r}; each needs a name of its own", code="invalid_name")
        suffix = PurePosixPath(id).suffix.lower()
        self._file = self._spool.create(suffix if suffix in SUFFIXES else "")
        self._uploads.append(Upload(id, self._file))

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        if self._file.size + end - start > self._largest:
            name = self._uploads[-1].id
            raise RequestError(413, f"the file {name!r} is larger than {self._largest:,} bytes; split it", code="file_too_large")
        self._file.write(data[start:end])

    def _close(self) -> None:
        assert self._file is not None
        self._file.close()
        self._file = None

    def _end(self) -> None:
        self._ended = True


def _filename(disposition: str) -> str:
    """The name in a Content-Disposition header, as it was sent: libraries cut folders off it, and then nobody can refuse them."""
    message = Message()
    message["Content-Disposition"] = disposition
    kind, *given = message.get_params([("", "")], "content-disposition")
    parameters = dict(given)
    if kind[0].lower() != "form-data" or len(parameters) != len(given):
        raise RequestError(400, "a part has no readable header 'Content-Disposition: form-data'", code="invalid_form")
    if parameters.get("name") != _FIELD or not isinstance(parameters.get("filename"), str):
        found = str(parameters.get("name"))[:80]
        raise RequestError(400, f"every part must be named '{_FIELD}' and have a filename, not {found!r}", code="invalid_form")
    return parameters["filename"]


def _malformed(error: FormParserError) -> RequestError:
    return RequestError(400, f"the form cannot be read: {error}", code="invalid_form")
