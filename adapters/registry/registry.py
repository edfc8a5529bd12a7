"""A folder of adapters by name. Each appears whole, by a rename, and goes whole; writers take turns."""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters import folder as disk
from adapters.registry.entry import Entry, read_entry, read_entry_or_problem
from rag.core.errors import AdapterError, InputError

if TYPE_CHECKING:
    from torch import nn

    from adapters.adapted import Form
    from adapters.contract import Factors

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_LOCK = ".lock"
_PATIENCE = 30.0
"""Seconds to wait for another writer, who copies one adapter."""


def default_folder() -> Path:
    """``$GRAFT_ADAPTERS``, or a folder among the user's data."""
    configured = os.environ.get("GRAFT_ADAPTERS")
    if configured:
        return Path(configured).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("graft")) / "adapters"


def check_name(name: str) -> str:
    """``name``, if it may name an adapter. Raises `InputError`."""
    if not _NAME.fullmatch(name):
        raise InputError(f"an adapter's name has 1 to 64 of the characters a-z, 0-9, '.', '_', '-', a letter or digit first; not {name!r}")
    return name


class Registry:
    """The adapters in ``folder`` (None: `default_folder`), which need not be there yet."""

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder).expanduser()

    def add(
        self,
        source: str | Path,
        name: str | None = None,
        base: nn.Module | None = None,
        base_name: str = "",
        replace: bool = False,
    ) -> Entry:
        """Take in a copy of an adapter of graft or of a PEFT LoRA folder, called ``name`` (None: as its folder).

        With ``base`` it is checked that the adapter is for that model; a PEFT folder does not tell, and can be worn by `adapters.load` only
        when it was added with its base. Raises `AdapterDamaged`, `AdapterMismatch`, `AdapterError` for what is refused, `InputError` for a
        name that is not allowed or taken (``replace`` takes its place).
        """
        path = Path(source).expanduser()
        chosen = check_name(path.resolve().name.lower() if name is None else name)
        from adapters.registry.intake import take_in

        taken = take_in(path, base, base_name)
        with self._locked():
            folder = self.folder / chosen
            if os.path.lexists(folder) and not replace:
                raise InputError(f"there is an adapter '{chosen}' already in {self.folder}; give another name, or replace it")
            self._refuse_link(folder)
            disk.write(folder, taken.config, taken.state, taken.head, taken.card)
        return read_entry(folder)

    def entries(self) -> list[Entry]:
        """All adapters by name; one that is damaged says so."""
        if not self.folder.is_dir():
            return []
        found = [folder for folder in self.folder.iterdir() if _NAME.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink()]
        return [read_entry_or_problem(folder) for folder in sorted(found)]

    def path(self, name: str) -> Path:
        """The folder of an adapter. Raises `InputError` for a bad name, `AdapterError` that lists what is there for an unknown one."""
        folder = self.folder / check_name(name)
        self._refuse_link(folder)
        if not folder.is_dir():
            names = ", ".join(entry.name for entry in self.entries()) or "none"
            raise AdapterError(f"there is no adapter '{name}' in {self.folder}; there are: {names}")
        return folder

    def show(self, name: str) -> tuple[Entry, dict[str, Any]]:
        """An adapter and its card. Raises as `path`, and `AdapterDamaged`."""
        folder = self.path(name)
        return read_entry(folder), disk.read_card(folder)

    def remove(self, name: str) -> None:
        """Delete an adapter, damaged or not. Raises as `path`."""
        with self._locked():
            folder = self.path(name)
            gone = folder.with_name(f".{name}.{uuid.uuid4().hex[:8]}.old")
            os.replace(folder, gone)
        shutil.rmtree(gone, ignore_errors=True)

    def export(self, name: str, form: Form, base: nn.Module, out: str | Path) -> Factors | None:
        """Write an adapter as plain LoRA, or merged into ``base``, which is then as it was. Raises as `adapters.load` and its export."""
        from adapters.adapted import load

        adapted = load(base, self.path(name))
        try:
            return adapted.export(form, out)
        finally:
            adapted.remove()

    def _refuse_link(self, folder: Path) -> None:
        if folder.is_symlink():
            raise AdapterError(f"{folder} is a link out of the registry; delete it by hand, and add the folder that it leads to")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / _LOCK, timeout=_PATIENCE):
                yield
        except Timeout:
            raise AdapterError(f"{self.folder}: another process has been writing for {_PATIENCE:g} s; try again when it is done") from None
