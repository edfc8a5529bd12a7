"""Which scope a request needs: one table, closed by default. What is not in the table, or is written oddly, needs ``admin``.

The path is the one that Starlette routes by: decoded once and not tidied up. So a path can only be taken for another one by a table that
tidies it up, and this one does not: it compares segment by segment, and a segment that some file system, proxy or second decoding could
read otherwise fits no row.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

KeyScope = Literal["ask", "write", "admin"]
SCOPES: tuple[KeyScope, ...] = get_args(KeyScope)
"""What a key may be for. No scope includes another: a key that may do all has all three."""

HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
"""Open to whoever reaches the server, and not counted (GET)."""

_ODD = re.compile(r"[\x00-\x1f\x7f\\]|%(?:00|2e|2f|5c)", re.IGNORECASE)


@dataclass(frozen=True)
class _Row:
    """``methods`` on ``paths``, where ``*`` is one segment, and ``**`` at the end one or more. ``scope`` None: no key is needed."""

    scope: KeyScope | None
    methods: str
    paths: str

    def fits(self, method: str, parts: list[str]) -> bool:
        """Whether this row is the one for the request."""
        return method in self.methods.split() and any(_same(pattern.split("/")[1:], parts) for pattern in self.paths.split())


_TABLE = (
    _Row(None, "GET", " ".join(HEALTH)),
    _Row(None, "GET HEAD", "/ /playground/**"),  # holds no data; its script sends the key that the user types
    _Row("ask", "POST", "/v1/chat/completions /v1/completions /v1/embeddings /v1/rerank /v2/rerank /v1/retrieve"),
    _Row("ask", "GET", "/v1/answers /v1/models /v1/models/* /v1/adapters /v1/pipelines /v1/contexts /v1/contexts/passage /openapi.json"),
    _Row("write", "GET POST PUT PATCH DELETE", "/v1/documents /v1/documents/** /v1/jobs /v1/jobs/**"),
)


def needed(method: str, path: str) -> KeyScope | None:
    """The scope for ``method`` (as it came, in capitals) on ``path`` (decoded, without a root path); None if the door is open to all."""
    if not path.startswith("/"):
        return "admin"
    parts = path.split("/")[1:]
    if path != "/" and any(part in ("", ".", "..") or _ODD.search(part) for part in parts):
        return "admin"
    return next((row.scope for row in _TABLE if row.fits(method, parts)), "admin")


def route_path(scope: Mapping[str, Any]) -> str:
    """The path that the routes see: without the prefix under which a proxy may offer the server. Where the prefix does not end at a
    slash, the rest begins without one, and no row fits it."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _same(pattern: list[str], parts: list[str]) -> bool:
    if pattern[-1] == "**":
        pattern = pattern[:-1] + ["*"] * max(1, len(parts) - len(pattern) + 1)
    return len(pattern) == len(parts) and all(wanted in ("*", part) for wanted, part in zip(pattern, parts, strict=True))
