"""What one server takes on, and whom it lets in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rag.core.errors import InputError

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


@dataclass(frozen=True)
class Worker:
    """One of several processes that answer on one port (`rag.serve.workers`)."""

    number: int
    """From 0. Number 0 is the writer: documents, jobs and adapters are its own, and the others ask it."""
    of: int
    """How many there are."""
    folder: Path
    """Theirs alone (0700): the writer's socket, their counters, and what is known of the model server."""

    @property
    def writes(self) -> bool:
        """Whether it is the writer."""
        return self.number == 0

    @property
    def socket(self) -> Path:
        """Where the writer answers the others."""
        return self.folder / "writer.sock"

    @property
    def metrics(self) -> Path:
        """Folder of what they count."""
        return self.folder / "metrics"

    def share(self, limits: Limits) -> Limits:
        """Its part of ``limits``: over all workers they add up to it. Raises `InputError` where not everyone has a question to answer."""
        if limits.running < self.of:
            raise InputError(
                f"{limits.running} questions at once cannot be shared out among {self.of} workers: have more of them (--running) or fewer"
                " workers (--workers)"
            )
        return replace(limits, running=self._part(limits.running), waiting=self._part(limits.waiting))

    def _part(self, whole: int) -> int:
        return whole // self.of + (self.number < whole % self.of)
