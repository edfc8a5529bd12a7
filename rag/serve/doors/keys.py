"""The key that a request carries, and whether it opens the door (RFC 6750: ``Authorization: Bearer KEY``, and nowhere else)."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.websockets import WebSocketClose

from rag.core.errors import InputError
from rag.serve.doors.keyfile import Entry, KeyFile, Watched, digest
from rag.serve.doors.scopes import SCOPES, KeyScope, needed, route_path
from rag.serve.errors import RequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ENVIRONMENT = "environment"
"""Name and id of the single key that is not in a file."""

_SHOWN = 200


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Ring:
    """The keys that a server knows: those of ``file``, read again when it changes, and one more, ``secret``, which may do everything.

    ``clock`` (seconds) says when to look at the file again, ``now`` whether a key has expired. Raises `InputError` for no keys at all or an
    empty secret, and `ConfigError` for a file that cannot be read or is no key file.
    """

    def __init__(
        self,
        file: KeyFile | None = None,
        secret: str | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        if file is None and secret is None:
            raise InputError("there is no key: name a key file, or the environment variable that holds one")
        if secret is not None and not secret.strip():
            raise InputError("the API key is empty; leave it out to serve without one")
        self._watched = None if file is None else Watched(file, clock)
        self._single = () if secret is None else (_single(secret, now()),)
        self._now = now

    def find(self, given: bytes) -> Entry | None:
        """The key of which ``given`` is the secret; None if there is none, or it has expired. How long it takes does not depend on which
        key it is, nor on how much of one was guessed."""
        ours = digest(given)
        found = None
        for entry in (*self._single, *(() if self._watched is None else self._watched.entries())):
            if hmac.compare_digest(entry.sha256, ours):
                found = entry
        if found is not None and found.expires is not None and found.expires <= self._now():
            return None
        return found


class Keys:
    """Lets a request through if its key has the scope that `rag.serve.doors.scopes` asks for; a websocket never.

    The key's id, or None, stands in ``scope["state"]["caller"]`` for what comes after, refused or not, and what it may do in
    ``scope["state"]["scopes"]``; without this middleware everybody may do everything, and neither is there.
    """

    def __init__(self, app: ASGIApp, ring: Ring) -> None:
        self.app = app
        self._ring = ring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 403, or hand on."""
        if scope["type"] == "websocket":
            await WebSocketClose(1008, "there is no websocket here")(scope, receive, send)
            return
        if scope["type"] != "lifespan" and (error := self._refusal(scope)):
            challenge = 'Bearer error="insufficient_scope"' if error.status == 403 else "Bearer"
            await JSONResponse(error.body(), error.status, {"WWW-Authenticate": challenge})(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> RequestError | None:
        state = scope.setdefault("state", {})
        state["caller"] = None
        needs = needed(scope["method"], route_path(scope))
        if needs is None:
            return None
        given = _given(scope)
        key = None if given is None else self._ring.find(given)
        if key is None:
            return RequestError(
                401, "wrong, expired or missing API key: send the header 'Authorization: Bearer KEY'", code="invalid_api_key"
            )
        state["caller"], state["scopes"] = key.id, key.scopes
        return None if needs in key.scopes else _too_little(scope, needs, key)


def _given(scope: Scope) -> bytes | None:
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return None
    scheme, _, secret = values[0].partition(b" ")
    return secret if scheme.lower() == b"bearer" and secret else None


def _too_little(scope: Scope, needs: KeyScope, key: Entry) -> RequestError:
    asked = f"{scope['method'][:_SHOWN]} {route_path(scope)[:_SHOWN]}"
    hint = " (so does every path that this server does not have)" if needs == "admin" else ""
    return RequestError(
        403,
        f"{asked} needs a key with the scope '{needs}'{hint}; this key has: {', '.join(key.scopes)}",
        type="permission_error",
        code="insufficient_scope",
    )


def _single(secret: str, now: datetime) -> Entry:
    return Entry(name=ENVIRONMENT, id=ENVIRONMENT, sha256=digest(secret.encode()), scopes=SCOPES, created=now)
