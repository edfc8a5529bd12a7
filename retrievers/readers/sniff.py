"""What bytes are, whatever the file is called."""

from __future__ import annotations

import re

from rag.core.errors import ReadError

_MAGIC = (
    (b"%PDF-", "a PDF"),
    (b"PK\x03\x04", "a ZIP archive or an Office file"),
    (b"PK\x05\x06", "an empty ZIP archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or password-protected Office file"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"\x1f\x8b", "a gzip file"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90", "a program"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"{\\rtf", "an RTF file"),
)
_HTML = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html[\s>]|head[\s>])", re.IGNORECASE | re.DOTALL)


def kind(data: bytes) -> str | None:
    """Name the format that the first bytes give away ("a PDF", "an HTML page"), or None for text and everything else."""
    head = data[:2048]
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if b"%PDF-" in head[:1024]:  # the standard allows other bytes before the header
        return "a PDF"
    return "an HTML page" if _HTML.match(head) else None


def refuse_binary(data: bytes, name: str) -> None:
    """Raise `ReadError` if the file called ``name`` is of a binary format although its suffix promises text."""
    found = kind(data)
    if found is not None and found != "an HTML page":
        raise ReadError(f"{name}: is {found}, not text as its suffix says; rename it or leave it out")


def require(data: bytes, name: str, *, wanted: str, magic: str) -> None:
    """Raise `ReadError` unless the file called ``name`` is ``magic`` (a name that `kind` gives), as its suffix promises (``wanted``)."""
    found = kind(data)
    if found != magic:
        raise ReadError(f"{name}: is {found or 'something else'}, not {wanted} as its suffix says; rename it or leave it out")
