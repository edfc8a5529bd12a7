"""The stores that a server may use: which there are, whose they are, and what is sound in them."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from generators.models.stitched.rotary import Rotary
from generators.models.vllm_contexts.claims import Block, Claim
from generators.models.vllm_contexts.served import Served
from rag.core.errors import ConfigError, CorpusDamaged, CorpusError, CorpusMismatch
from retrievers.context.encoded import Encoded
from retrievers.context.segment import TENSORS, Segment
from retrievers.context.store import ContextStore, Miss

FIXED: Final = "fixed"
"""Below a store's folder: the store of a prompt's fixed blocks, which are no passages and have no name among them."""
_FIXED_BYTES = 64 << 20

Reason = Literal["claim", "prompt", "scored", "tenant", "adapter", "store", "absent", "damaged", "dtype", "error"]
"""Why a prompt with borders is read in full: they make no sense; it has more than tokens; its own log-probabilities are asked for; the
tenant is unknown or the key wrong; there is no store for this adapter; none can be opened; a block is in none; it is damaged; the cache is
quantised; planning failed."""


class StoreSetting(BaseModel):
    """One store: its folder, and who may use it (None: everyone)."""

    model_config = ConfigDict(extra="forbid")

    path: Annotated[str, Field(min_length=1)]
    tenant: str | None = None


class Settings(BaseModel):
    """``kv_connector_extra_config``: the stores, SHA-256 of the tenants' keys by name, and how much RAM each store may take."""

    model_config = ConfigDict(extra="forbid")

    stores: Annotated[list[StoreSetting], Field(min_length=1)]
    tenants: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = {}
    ram_bytes: Annotated[int, Field(ge=0)] = 1 << 30

    @model_validator(mode="after")
    def _known(self) -> Settings:
        for store in self.stores:
            if store.tenant is not None and store.tenant not in self.tenants:
                raise ValueError(f"store {store.path} belongs to tenant {store.tenant!r}, whose key's SHA-256 is not among the tenants")
        return self


def settings_of(given: Any) -> Settings:
    """Raises `ConfigError`."""
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"kv_connector_extra_config{f'.{where}' if where else ''}: {first['msg']}") from None


class Shelf:
    """One store for the served model, opened, with its fixed blocks. Raises `CorpusError`; `CorpusMismatch` if it is another model's."""

    def __init__(self, path: Path, served: Served, ram_bytes: int) -> None:
        main = ContextStore(path, ram_bytes=ram_bytes)
        self.rotary: Rotary = served.rotary_of(main.model, path)
        self.adapter = main.model.adapter
        self._stores = [main]
        if (path / FIXED).is_dir():  # an earlier version made none
            self._stores.append(ContextStore(path / FIXED, main.model, ram_bytes=min(ram_bytes, _FIXED_BYTES)))

    def place(self, spelling: str) -> tuple[Segment, int] | Miss:
        """Where the block of these tokens is on disk."""
        broken = ""
        for store in self._stores:
            try:
                state = store.state()
            except CorpusError as error:
                return Miss(spelling, "damaged", str(error))
            if spelling in state.spelt:
                return state.places[state.spelt[spelling]]
            broken = broken or next(iter(state.broken.values()), "")
        return Miss(spelling, "damaged", broken) if broken else Miss(spelling, "absent")

    def get(self, spelling: str) -> Encoded | Miss:
        """Its numbers, from memory if they are there."""
        found: Encoded | Miss = Miss(spelling, "absent")
        for store in self._stores:
            found = store.spelt(spelling)
            if not isinstance(found, Miss) or found.reason != "absent":
                return found
        return found


class Shelves:
    """The shelves of a process, opened when first asked for."""

    def __init__(self, served: Served, ram_bytes: int) -> None:
        self._served, self._ram_bytes = served, ram_bytes
        self._open: dict[str, Shelf] = {}

    def at(self, path: str) -> Shelf:
        """Raises `CorpusError`; the next call tries again."""
        if path not in self._open:
            self._open[path] = Shelf(Path(path), self._served, self._ram_bytes)
        return self._open[path]


@dataclass(frozen=True, slots=True)
class Placed:
    """A block and the store that has it."""

    block: Block
    path: str


class Refused(Exception):
    """A prompt is read in full, for this reason."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(detail or reason)
        self.reason = reason


class Catalogue:
    """Finds the blocks of a prompt in the stores that its sender may use, and reads each from the disk once to see that it is sound."""

    def __init__(self, settings: Settings, shelves: Shelves) -> None:
        self._settings, self._shelves = settings, shelves
        self._sound: dict[tuple[str, int], tuple[int, ...]] = {}

    def check_start(self) -> list[str]:
        """What cannot be opened now, and why. Raises `CorpusMismatch` for a store of another model: no waiting will mend that."""
        words = []
        for setting in self._settings.stores:
            try:
                self._shelves.at(setting.path)
            except CorpusMismatch:
                raise
            except CorpusError as error:
                words.append(str(error))
        return words

    def admitted(self, claim: Claim) -> bool:
        """Whether the tenant's key is right. It takes as long for a tenant that there is not."""
        if claim.tenant is None:
            return True
        given = hashlib.sha256((claim.key or "").encode("utf-8", "surrogatepass")).hexdigest()
        return hmac.compare_digest(given, self._settings.tenants.get(claim.tenant, "0" * 64))

    def find(self, tenant: str | None, adapter: str | None, blocks: Sequence[Block]) -> list[Placed]:
        """Where each block is. Raises `Refused`, for the first that is nowhere or damaged."""
        paths = self._paths(tenant, adapter)
        return [self._placed(block, paths) for block in blocks]

    def forget(self) -> None:
        """Read all from the disk again: what was sound could not be loaded."""
        self._sound.clear()

    def _paths(self, tenant: str | None, adapter: str | None) -> list[str]:
        found, failed = [], ""
        for setting in self._settings.stores:
            if setting.tenant == tenant:
                try:
                    if self._shelves.at(setting.path).adapter == adapter:
                        found.append(setting.path)
                except CorpusError as error:
                    failed = str(error)
        if not found:
            raise Refused("store", failed) if failed else Refused("adapter", "no store was encoded with this adapter")
        return found

    def _placed(self, block: Block, paths: Sequence[str]) -> Placed:
        worst = Refused("absent")
        for path in paths:
            place = self._shelves.at(path).place(block.spelling)
            if isinstance(place, Miss):
                if place.reason != "absent":
                    worst = Refused("damaged", place.detail)
                continue
            try:
                self._check(*place)
                return Placed(block, path)
            except CorpusDamaged as error:
                worst = Refused("damaged", str(error))
        raise worst

    def _check(self, segment: Segment, row: int) -> None:
        """Raises `CorpusDamaged`. A file that is as it was when a passage was read is not read again."""
        key = str(segment.folder), row
        try:
            found = os.stat(segment.folder / TENSORS)
        except OSError as error:
            raise CorpusDamaged(f"{segment.folder / TENSORS}: {error.strerror}") from error
        stamp = found.st_ino, found.st_mtime_ns, found.st_size
        if self._sound.get(key) != stamp:
            self._sound.pop(key, None)
            segment.load(row)
            self._sound[key] = stamp
