"""What one server takes on, and whom it lets in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag.serve.doors.keyfile import KeyFile
    from retrievers.corpus import Corpus


@dataclass(frozen=True)
class Limits:
    """How much at once, and for how long."""

    running: int = 64
    """Questions that are answered at once."""
    waiting: int = 128
    """Questions that wait for their turn; further ones are sent away."""
    seconds: float = 300.0
    """The longest that an answer may take, waiting included."""
    drain: float = 25.0
    """Seconds that a running stream may go on after SIGTERM."""


@dataclass(frozen=True)
class Doors:
    """Who may come in. Without keys everybody may do everything: that is for an address that nobody else can reach."""

    keys: KeyFile | None = None
    """The keys of callers, with what each may do."""
    secret: str | None = None
    """One more key, which may do everything."""
    bind: str | None = None
    """The address that the server listens on: requests that name another host are refused. None: hosts are not looked at."""
    hosts: tuple[str, ...] = ()
    """Other names under which it may be asked; "*" for all."""
    origins: tuple[str, ...] = ()
    """Origins of pages in browsers that may ask, besides its own."""
    per_minute: float | None = None
    """Requests that a caller may send in a minute; None: any number."""
    burst: int | None = None
    """How many of them at once; None: as many as in a minute."""
    proxies: tuple[str, ...] = ()
    """Addresses or networks whose word about a caller's address is believed."""

    @property
    def locked(self) -> bool:
        """Whether a key is asked for."""
        return self.keys is not None or self.secret is not None


@dataclass(frozen=True)
class Uploads:
    """Documents that callers may bring, change and delete."""

    corpus: Corpus
    spool: Path
    """Folder for what was uploaded and is not indexed yet; several servers may share one."""
