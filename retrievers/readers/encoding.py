"""Bytes to text: UTF-8 and UTF-16/32 by proof, GB18030 by its common characters, the rest by charset-normalizer."""

from __future__ import annotations

import codecs
import re

from rag.core.errors import ReadError

_BOMS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAMPLE = 1_000_000
_ASCII = re.compile(rb"[\t\n\r -~]")
_HIGH = re.compile(rb"[\x80-\xff]")
_UTF8_TWO = re.compile(rb"[\xc2-\xdf][\x80-\xbf]")
_UTF8_MORE = re.compile(rb"[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")
_UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]")
_CHINESE = re.compile(r"[\u4e00-\u9fff\u3000-\u303f\uff00-\uffef\u2010-\u2027\u00b7]")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_COMMON_HAN = re.compile(
    "[的一是不了在人有我他这中大来上国个到说们为子和你地出时年得就要下以生会自过对可后多天能好都日于发成事作当用主行方如前所本面同三从与及或请其第]"
)
_NOT_UTF8 = "save it as UTF-8"


def decode(data: bytes, name: str) -> str:
    """Return the text of ``data``; ``name`` is the file, for messages.

    Raises `ReadError` if the bytes are binary, damaged UTF-8 (the message gives the line) or in no encoding that can be told.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return _strictly(data, encoding, name)
    if b"\0" in data:
        return _wide(data, name)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if _mostly_utf8(data[:_SAMPLE], data[error.start :][:_SAMPLE]):
            line = data.count(b"\n", 0, error.start) + 1
            reason = f"is UTF-8 up to line {line}, byte {error.start}, and something else there (two encodings mixed, or damage)"
            raise ReadError(f"{name}: {reason}; {_NOT_UTF8}") from error
    return _chinese(data) or _guessed(data, name)


def declared(data: bytes, encoding: str) -> str | None:
    """The text of ``data`` in the ``encoding`` that it declares itself; None if there is no such encoding or it does not fit."""
    try:
        known = codecs.lookup(encoding).name
        return data.decode("gb18030" if known in ("gb2312", "gbk") else known)
    except (LookupError, ValueError):
        return None


def clean(text: str) -> str:
    """Make ``text`` storable: line ends become "\\n", a byte order mark goes, and what UTF-8 cannot hold (or NUL) becomes U+FFFD."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _UNSTORABLE.sub("\ufffd", text.removeprefix("\ufeff"))


def _strictly(data: bytes, encoding: str, name: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ReadError(f"{name}: begins as {encoding.upper()} but byte {error.start} does not fit it; {_NOT_UTF8}") from error


def _wide(data: bytes, name: str) -> str:
    """UTF-16 without a byte order mark, told by where its zero bytes stand; all else with zero bytes (ASCII with a few, too) is binary."""
    sample = data[: _SAMPLE & ~1]
    stray = sample.count(0) < len(sample) / 4 and len(_ASCII.findall(sample)) > 0.8 * len(sample)
    encoding = "utf-16-le" if sample[1::2].count(0) >= sample[::2].count(0) else "utf-16-be"
    text = None if stray else declared(data, encoding)
    if text is None or _CONTROL.search(text[:_SAMPLE]):
        raise ReadError(f"{name}: is binary (it has zero bytes); only text can be indexed")
    return text


def _mostly_utf8(head: bytes, tail: bytes) -> bool:
    """Whether bytes that are not valid UTF-8 were meant to be.

    In GBK some 3% of the high bytes look like longer UTF-8 sequences by accident, in Latin-1 hardly any look like either kind.
    """
    sample = head + tail
    high = len(_HIGH.findall(sample))
    more = sum(map(len, _UTF8_MORE.findall(sample)))
    two = 2 * len(_UTF8_TWO.findall(_UTF8_MORE.sub(b"", sample)))
    return more > 0.25 * high or more + two > 0.8 * high


def _chinese(data: bytes) -> str | None:
    """The text if it is GB18030 (GBK, GB2312): ideographs, of which every twentieth is one of the most common hundred."""
    text = declared(data, "gb18030")
    if text is None:
        return None
    sample = text[:_SAMPLE]
    foreign = sum(not c.isascii() for c in sample)
    han = len(_HAN.findall(sample))
    fits = len(_CHINESE.findall(sample)) >= 0.95 * foreign and len(_COMMON_HAN.findall(sample)) >= 0.05 * han
    return text if han and fits else None


def _guessed(data: bytes, name: str) -> str:
    from charset_normalizer import from_bytes

    match = from_bytes(data[:_SAMPLE]).best()
    text = declared(data, match.encoding) if match else None
    if text is None or _CONTROL.search(text):
        raise ReadError(f"{name}: is binary or in an encoding that cannot be told; {_NOT_UTF8}")
    return text
