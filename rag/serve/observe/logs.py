"""Log records as lines on stderr, JSON or text, each with the id of its request.

A record is one line whatever it holds: control characters are written as escapes. What a request keeps private (its question, its key) is
masked in messages and tracebacks, because an error from elsewhere may quote it.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TextIO

from rag.core.errors import InputError

FORMATS = ("json", "text")
LEVELS = ("debug", "info", "warning", "error")

MASK = "[private]"
_SHORTEST = 4
"""Characters of a text that is worth masking: a shorter one would be found in every other word."""
_HEAD = 60
"""Whoever quotes a long text may cut it short; its beginning is masked too."""
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, other ends of lines, marks that turn the direction of writing, and lone surrogates."""

_request_id: ContextVar[str] = ContextVar("graft_request_id", default="")
_private: ContextVar[list[str] | None] = ContextVar("graft_private", default=None)


def current_request_id() -> str:
    """The id of the request that is being answered, or ``""`` outside of one."""
    return _request_id.get()


@contextmanager
def during(request_id: str) -> Iterator[None]:
    """Everything inside, tasks and threads that it starts included, logs under ``request_id``."""
    given, kept = _request_id.set(request_id), _private.set([])
    try:
        yield
    finally:
        _request_id.reset(given)
        _private.reset(kept)


def keep_private(text: str) -> None:
    """Mask ``text`` in what this request logs from now on. Nothing happens outside of a request, or for less than 4 characters."""
    kept = _private.get()
    if kept is not None and len(text.strip()) >= _SHORTEST:
        kept.append(text.strip())


def configure_logging(format: str = "text", level: str = "info", stream: TextIO | None = None) -> None:
    """Send the records of graft and uvicorn from ``level`` on, and warnings of all others, to ``stream`` (stderr).

    For the process as a whole, and so for commands, not for libraries; calling it again replaces what it did before. uvicorn's own access
    log is silenced, because it writes raw paths and query strings: start uvicorn with ``log_config=None``. Raises `InputError`.
    """
    if format not in FORMATS:
        raise InputError(f"a log is written as {' or '.join(FORMATS)}, not {format!r}")
    if level not in LEVELS:
        raise InputError(f"the log's level is one of {', '.join(LEVELS)}, not {level!r}")
    handler = _Handler(sys.stderr if stream is None else stream)
    handler.addFilter(_with_request_id)
    handler.setFormatter(JsonLines() if format == "json" else TextLines())
    root = logging.getLogger()
    root.handlers = [*(h for h in root.handlers if not isinstance(h, _Handler)), handler]
    for name in ("graft", "uvicorn"):
        logging.getLogger(name).setLevel(level.upper())
    silenced = logging.getLogger("uvicorn.access")
    silenced.handlers, silenced.propagate = [], False


class JsonLines(logging.Formatter):
    """A JSON object per line: time (UTC), level, logger, message, request_id, the record's ``fields``, and a traceback as ``exception``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage()),
            "request_id": getattr(record, "request_id", "") or None,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = masked(self.formatException(record.exc_info))
        return _UNSAFE.sub(_escaped, json.dumps(line, ensure_ascii=False, default=str))


class TextLines(logging.Formatter):
    """For people: ``time level [request] logger: message key=value``. A traceback follows, each line of it behind a bar."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and those of a traceback."""
        fields = "".join(f" {name}={value}" for name, value in getattr(record, "fields", {}).items() if value is not None)
        request = getattr(record, "request_id", "") or "-"
        message = masked(record.getMessage())
        lines = [f"{_time(record)} {record.levelname.lower()} [{request}] {record.name}: {message}{fields}"]
        if record.exc_info:
            lines += [f"    | {line}" for line in masked(self.formatException(record.exc_info)).split("\n")]
        return "\n".join(_UNSAFE.sub(_escaped, line) for line in lines)


def masked(text: str) -> str:
    """``text`` without what the current request keeps private, also where it was quoted with escapes or cut short."""
    for private in _private.get() or ():
        for form in dict.fromkeys((private, repr(private)[1:-1], json.dumps(private)[1:-1], json.dumps(private, ensure_ascii=False)[1:-1])):
            text = text.replace(form, MASK)
            if len(form) > _HEAD:
                text = text.replace(form[:_HEAD], MASK)
    return text


class _Handler(logging.StreamHandler[TextIO]):
    """The handler that `configure_logging` made, to be found again."""


def _with_request_id(record: logging.LogRecord) -> bool:
    record.request_id = current_request_id()
    return True


def _time(record: logging.LogRecord) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def _escaped(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
