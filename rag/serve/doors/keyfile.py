"""The keys of `rag serve` in a file: what each may do, and a digest of its secret, never the secret.

A secret is 32 random bytes, so a plain SHA-256 is enough: a slow hash protects passwords, which can be guessed, and 2^256 cannot.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from adapters.durable import flush
from rag.core.errors import ConfigError, InputError
from rag.serve.doors.scopes import SCOPES, KeyScope

log = logging.getLogger("graft.serve")

PREFIX = "graft_"
"""Every secret begins with it, so that scanners of code and logs can find one that leaked."""

MAX_KEYS = 1_000
"""Every request is compared with every key."""

_MAX_BYTES = 1_000_000
_PATIENCE = 10.0
_EVERY = 1.0
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

_Mark = tuple[int, int, int]


class Entry(BaseModel):
    """A key without its secret. ``id`` is what lists and logs show; ``expires`` None: never."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")
    name: str = Field(pattern=_NAME)
    id: str = Field(pattern="^[a-z0-9_]{1,40}$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", repr=False)
    scopes: tuple[KeyScope, ...] = Field(min_length=1, max_length=len(SCOPES))
    created: AwareDatetime
    expires: AwareDatetime | None = None


class _Content(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    format: Literal["graft-keys"]
    version: Literal[1]
    keys: tuple[Entry, ...] = Field(max_length=MAX_KEYS)


class KeyFile:
    """The key file ``path``. It is written whole or not at all, for its owner only (0600), by one process at a time."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def add(self, name: str, scopes: Iterable[str], expires: datetime | None = None) -> str:
        """Make a key, and the file if there is none, and give its secret, which is kept nowhere.

        ``expires`` is a time with a zone. Raises `InputError` for a name that is taken or no name, an unknown scope or none, a time that is
        past or has no zone; `ConfigError` if the file is no key file, or cannot be written.
        """
        secret = PREFIX + secrets.token_urlsafe(32)
        entry = _new(name, secret, tuple(scopes), expires)
        with self._locked():
            entries = self.entries() if self.path.exists() else ()
            if any(known.name == name for known in entries):
                raise InputError(f"{self.path} has a key named '{name}' already; remove it first, or choose another name")
            if len(entries) >= MAX_KEYS:
                raise InputError(f"{self.path} has {len(entries):,} keys; more are not taken: remove some")
            self._write((*entries, entry))
        return secret

    def remove(self, name: str) -> Entry:
        """Take the key away. Raises `InputError` if there is none of that name; `ConfigError` as `add`."""
        with self._locked():
            entries = self.entries()
            for entry in entries:
                if entry.name == name:
                    self._write([other for other in entries if other is not entry])
                    return entry
        known = ", ".join(entry.name for entry in entries) or "none"
        raise InputError(f"{self.path} has no key named '{name}'; there are: {known}")

    def entries(self) -> tuple[Entry, ...]:
        """The keys, oldest first. Raises `ConfigError` if the file is missing, unreadable, damaged or something else."""
        return self.read()[0]

    def read(self) -> tuple[tuple[Entry, ...], _Mark]:
        """The keys, and the file's mark as it was when they were read. Raises as `entries`; warns if others may read the file."""
        try:
            with open(self.path, "rb", opener=_without_waiting) as file:
                state = os.fstat(file.fileno())
                if not stat.S_ISREG(state.st_mode):
                    raise ConfigError(f"{self.path} is no file")
                content = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            raise ConfigError(f"there is no key file {self.path}; `rag keys add NAME --file {self.path}` makes it") from None
        except OSError as error:
            raise ConfigError(f"{self.path}: the key file cannot be read ({error.strerror or error})") from error
        if state.st_mode & 0o077:
            mode = stat.S_IMODE(state.st_mode)
            log.warning("%s: others on this machine may use the key file (mode %o); run: chmod 600 %s", self.path, mode, self.path)
        return self._parse(content), _mark(state)

    def mark(self) -> _Mark:
        """What changes when the file does: (time of change, size, inode). Raises `OSError`."""
        return _mark(os.stat(self.path))

    def _parse(self, content: bytes) -> tuple[Entry, ...]:
        if len(content) > _MAX_BYTES:
            raise self._foreign(f"it has more than {_MAX_BYTES:,} bytes")
        try:
            entries = _Content.model_validate_json(content).keys
        except ValidationError as error:  # without the input: who names the wrong file must not find it in a log
            first = error.errors(include_url=False, include_input=False, include_context=False)[0]
            raise self._foreign(f"{'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg'][:200]}") from None
        for what in ("name", "id", "sha256"):
            if len({getattr(entry, what) for entry in entries}) < len(entries):
                raise self._foreign(f"two keys have the same {what}")
        return entries

    def _foreign(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self.path} is no key file of this version, or it is damaged ({reason}); bring back a copy of it, or move it away and make"
            " new keys with `rag keys add`"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        target = self.path.resolve()
        try:
            with FileLock(target.with_name(f"{target.name}.lock"), timeout=_PATIENCE, mode=0o600):
                yield
        except Timeout:
            raise ConfigError(f"{self.path}: another process has been writing for {_PATIENCE:g} s; try again when it is done") from None
        except OSError as error:
            raise ConfigError(f"{self.path}: the key file cannot be written ({error.strerror or error})") from error

    def _write(self, entries: Sequence[Entry]) -> None:
        target = self.path.resolve()  # a link stays a link
        made = target.with_name(f".{target.name[:50]}.{secrets.token_hex(4)}.new")
        content = {"format": "graft-keys", "version": 1, "keys": [entry.model_dump(mode="json") for entry in entries]}
        try:
            with open(made, "x", encoding="utf-8", opener=_private) as file:
                with suppress(FileNotFoundError, PermissionError):  # made by root, read by the server's user
                    before = target.stat()
                    os.fchown(file.fileno(), before.st_uid, before.st_gid)
                file.write(json.dumps(content, indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(made, target)
            flush(target.parent)
        finally:
            made.unlink(missing_ok=True)


class Watched:
    """The keys of a file that may change while the server runs: looked at no more than once a second (``clock``, in seconds).

    A file that is damaged or gone meanwhile leaves the keys as they were, and the log says so; to take all keys away, remove each.
    Raises `ConfigError` as `KeyFile.entries` when it is made.
    """

    def __init__(self, file: KeyFile, clock: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock = clock
        self._known, self._mark = file.read()
        self._looked = clock()
        self._fault = ""

    def entries(self) -> tuple[Entry, ...]:
        """The keys as they stand in the file, up to a second late."""
        now = self._clock()
        if now - self._looked >= _EVERY:
            self._looked = now
            self._look()
        return self._known

    def _look(self) -> None:
        with suppress(OSError):
            if not self._fault and self._file.mark() == self._mark:
                return
        try:
            self._known, self._mark = self._file.read()
        except ConfigError as error:
            if str(error) != self._fault:  # once, not every second
                log.error("the keys stay as they were (%d): %s", len(self._known), error)
            self._fault = str(error)
        else:
            self._fault = ""
            log.info("%s: read again, %d keys", self._file.path, len(self._known))


def digest(secret: bytes) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret).hexdigest()


def _new(name: str, secret: str, scopes: tuple[str, ...], expires: datetime | None) -> Entry:
    now = datetime.now(UTC).replace(microsecond=0)
    if not re.fullmatch(_NAME, name):
        raise InputError(f"a key's name has 1 to 64 of a-z, A-Z, 0-9, '.', '_', '-' and begins with a letter or digit, not {name[:80]!r}")
    chosen = tuple(scope for scope in SCOPES if scope in scopes)
    if not chosen or len(chosen) < len(set(scopes)):
        raise InputError(f"a key has one or more of the scopes {', '.join(SCOPES)}, not {', '.join(scopes)[:80] or 'none'}")
    if expires is not None and (expires.tzinfo is None or expires <= now):
        raise InputError(f"a key expires at a time to come, given with its zone, not {expires.isoformat()}")
    return Entry(name=name, id=f"key_{secrets.token_hex(6)}", sha256=digest(secret.encode()), scopes=chosen, created=now, expires=expires)


def _mark(state: os.stat_result) -> _Mark:
    return state.st_mtime_ns, state.st_size, state.st_ino


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe in place of the file would never answer


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
