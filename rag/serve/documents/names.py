"""What a document may be called by whoever sends it."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from rag.serve.errors import RequestError

MAX_NAME = 255
"""Bytes of a name in UTF-8."""

_NOT_IN_NAMES = frozenset({"Cc", "Cs", "Zl", "Zp"})  # control characters, halves of surrogate pairs, separators of lines
_DRIVE = re.compile(r"[A-Za-z]:")
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
_RECORDS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson"})


def document_id(name: str) -> str:
    """``name`` (NFC) if it can be a document's id: a file name, with folders before it or without.

    Nothing is ever written under it; it is strict all the same, because the next one who makes a path of it may not be. Raises
    `RequestError` (400).
    """
    shown = repr(name[:80])
    name = unicodedata.normalize("NFC", name)  # macOS spells "é" with two code points
    if not name.strip():
        raise _refused("a document needs a name that is not empty")
    if any(unicodedata.category(letter) in _NOT_IN_NAMES for letter in name):
        raise _refused(f"the name {shown} holds a control character")
    if len(name.encode()) > MAX_NAME:
        raise _refused(f"the name {shown}… has {len(name.encode()):,} bytes; at most {MAX_NAME} are allowed")
    if "\\" in name or name.startswith("/") or _DRIVE.match(name):
        raise _refused(f"the name {shown} is an absolute path or holds a backslash; name the file with '/' between folders")
    for part in name.split("/"):
        if not part.strip(" ."):
            raise _refused(f"the name {shown} holds '.', '..' or an empty folder name")
        if _DEVICE.fullmatch(part.partition(".")[0].rstrip(" ")):
            raise _refused(f"the name {shown} is that of a device on Windows; rename the file")
    return name


def root_of(id: str) -> str:
    """Where the corpus says the documents of the file ``id`` come from: "" for a file of one document.

    A table gives one document for each record. Its name marks them, so that records that a newer version lacks are found and deleted.
    """
    return f"upload:{id}" if PurePosixPath(id).suffix.lower() in _RECORDS else ""


def _refused(reason: str) -> RequestError:
    return RequestError(400, reason, code="invalid_name")
